"""What a run is. No torch.

schema      the run: its sections and what they must be together
models, training, sampling
            the sections: every key with its type, default, meaning and range
ranges      ranges of numbers, beside the fields that have them
yaml_files  YAML that people write, bounded in what it stands for
load        presets, YAML files and overrides to a checked `RunConfig`, and back
sharding    where the DeepSpeed JSONs of `ds_configs/` lie
describe    docs/config.md, from the dataclasses
"""
