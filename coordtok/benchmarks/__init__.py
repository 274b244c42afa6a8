"""What scripts/benchmark.py measures, and checks of plans.

command_*                        each benchmark's description, options and run: read these first
bench_*                          what it measures, and its report
loader_*, plain_loader           the sides of `loader`: shards, and full-size videos read plainly
synthetic, untrained             shards of noise, and models of random weights
plan_check                       what plans say beside what is found (scripts/scaling.py check):
counted, plan_rank, probes       by torch's counters, by ranks that train, by a device at best
phases, communication            clocks and collectives
table                            a report for people and in JSON
"""
