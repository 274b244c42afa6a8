"""From raw datasets to tar shards.

build_shards, options      the command: videos to shards, and what can be asked of it
datasets                   layouts of raw datasets: which videos there are, with names and classes
distributors               processes on this machine, or a Ray cluster
segments                   a video into encoded segments
held_out                   what becomes the held-out part
shard_plan, shard_writer   which segment lies in which shard, and writing them
work, summary              what is finished so far, and what a build gave
verify_shards              the command that checks shards, or indexes those made elsewhere
quickstart                 the sample shards of `make train`
"""
