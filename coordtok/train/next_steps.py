"""What a finished run prints: where everything is, and what to type next."""

from coordtok.config.schema import RunConfig
from coordtok.train.checkpoint_folder import committed
from coordtok.train.run_folder import RunFolder
from coordtok.train.tasks.kinds import task_class


def next_steps(folder: RunFolder, run: RunConfig) -> str:
    pictures = sorted(map(str, folder.samples.glob(f"step_{run.train.steps:08d}*.png")))
    task = task_class(run.model)
    return "\n".join(
        [
            f"finished {run.train.steps} steps",
            f"  checkpoint  {next(iter(committed(folder.checkpoints)), None)}",
            f"  metrics     {folder.metrics}",
            f"  pictures    {', '.join(pictures)} ({task.caption})",
            "longer          the same command with train.steps=...",
            f"use it          python scripts/export.py {folder.path} exports/{folder.path.name}",
            task.usage.format(name=folder.path.name),
        ]
    )
