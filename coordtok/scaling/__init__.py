"""Planning and comparing runs before and after they are paid for. Nothing here imports torch.

parameters   of a model, by name and by part
operations   the matrix products and attentions of a clip, by part: what costs are read from
flops        what a training step costs in operations, by part
activations  what a forward pass keeps for the backward pass, by part, in bytes
memory_needs what a model takes at least, held against what this machine has free
collectives  what ranks send each other
devices      what accelerators can do, with sources
memory       what a rank holds under ZeRO
checkpoints  what each rank writes and reads of one
times        how long an update takes, product by product
plan         all of it for one run: fits, cost, what would starve it (plan_report, plan_plot)
study        a list of configs x seeds under equal compute, and their training runs
runner       runs them, one after another or side by side, and goes on after a kill
prefixes     steps that runs of one config share, trained once
ranking      the table of what they reached
law          loss by parameters and clips, fitted to them; law_report shows it
"""
