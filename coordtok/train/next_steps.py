"""What a finished run prints: where everything is, and what to type next."""

from coordtok.config.schema import DiTModelConfig, RunConfig
from coordtok.train.checkpoint_folder import committed
from coordtok.train.run_folder import RunFolder

_TOKENIZER = """\
longer          the same command with train.steps=...
use it          python scripts/export.py {run} exports/{name}
                python scripts/reconstruct.py --model exports/{name} --input VIDEO --output out
your videos     python -m data_prep.build_shards --input VIDEOS --output shards/mine
many GPUs       deepspeed --num_gpus 8 scripts/train.py --deepspeed ds_configs/zero3.json \\
                    --config tokenizer_l data.shards=shards/mine data.val_shards=null \\
                    run_dir=runs/mine"""
_GENERATOR = """\
longer          the same command with train.steps=...
use it          python scripts/export.py {run} exports/{name}
                python scripts/sample.py --model exports/{name} --num 16 --output samples/{name}"""


def next_steps(folder: RunFolder, run: RunConfig) -> str:
    pictures = sorted(map(str, folder.samples.glob(f"step_{run.train.steps:08d}*.png")))
    is_generator = isinstance(run.model, DiTModelConfig)
    shown = "samples" if is_generator else "originals above reconstructions"
    following = _GENERATOR if is_generator else _TOKENIZER
    return "\n".join(
        [
            f"finished {run.train.steps} steps",
            f"  checkpoint  {next(iter(committed(folder.checkpoints)), None)}",
            f"  metrics     {folder.metrics}",
            f"  pictures    {', '.join(pictures)} ({shown})",
            following.format(run=folder.path, name=folder.path.name),
        ]
    )
