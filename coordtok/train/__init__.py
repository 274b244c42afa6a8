"""A training run, from its config to its last step. deepspeed is named in this folder alone.

run                   one run from config to end: every part is made here, in order
loop                  the steps, in the order things happen
tasks/                what is particular to a tokenizer and to a generator
engine                from a DeepSpeed JSON and a config to a DeepSpeed engine
masters               how DeepSpeed lays out the weights that it trains and their optimiser's states
slices                slices of them in memory and files
messages              what DeepSpeed's comms logger counts
optim                 parameter groups, optimiser and learning rate
muon                  Muon for weight matrices, on weights that lie in slices
ema                   the moving average of the weights
checkpoint            everything that decides the next step, and how it comes back
checkpoint_folder     which checkpoints are complete, and which one a path means
checkpoint_index      what a checkpoint holds, and in which file
saver                 saving while training goes on
conversion            checkpoints of the former format; training does not import it
resume, initialise    where a run starts: `--resume`, and `train.init_from`
export                from a checkpoint to an export
validation            held-out clips once over all ranks; looks: what a run shows of them
monitor               metrics.jsonl, progress, pictures; clock, peak: rates and memory
curves, trackers      curves.png; wandb and TensorBoard
run_folder, signals   who owns the folder, and how a run is asked to stop
start, next_steps     what a run prints when it starts and when it ends; quiet: what it keeps back
"""
