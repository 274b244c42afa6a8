"""What scripts/benchmark.py measures.

command_*                        each benchmark's description, options and run: read these first
bench_*                          what it measures, and its report
loader_*, plain_loader           the sides of `loader`: shards, and full-size videos read plainly
synthetic, untrained             shards of noise, and models of random weights
phases, communication            clocks and collectives
table                            a report for people and in JSON
"""
