"""A training run, from its config to its last step. deepspeed is named in this folder alone.

run                   one run from config to end: every part is made here, in order
loop                  the steps, in the order things happen
tasks/                what is particular to a tokenizer and to a generator
engine                from a DeepSpeed JSON and a config to a DeepSpeed engine
masters, slices       how DeepSpeed lays out the weights that it trains, and slices of them in files
optim                 parameter groups, optimiser and learning rate
muon                  Muon for weight matrices, on weights that lie in slices
ema                   the moving average of the weights
checkpoint            everything that decides the next step; checkpoint_folder: which are complete
resume, initialise    where a run starts: `--resume`, and `train.init_from`
export                from a checkpoint to an export
validation            held-out clips once over all ranks
monitor               metrics.jsonl, progress, pictures; clock, peak: rates and memory
curves, trackers      curves.png; wandb and TensorBoard
run_folder, signals   who owns the folder, and how a run is asked to stop
start, next_steps     what a run prints when it starts and when it ends; quiet: what it keeps back
"""
