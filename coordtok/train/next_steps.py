"""What a run prints at its end: where everything is, and what to type next."""

from pathlib import Path

from coordtok.config.schema import RunConfig
from coordtok.train.checkpoint_folder import committed, tag_of
from coordtok.train.run_folder import RunFolder
from coordtok.train.tasks.kinds import task_class


def next_steps(folder: RunFolder, run: RunConfig, step: int) -> str:
    """Of a run that is finished at `step`."""
    return "\n".join(
        [
            f"finished {step} steps",
            where_it_is(folder, run, step),
            "longer          the same command with train.steps=...",
            f"use it          python scripts/export.py {folder.path} exports/{folder.path.name}",
            task_class(run.model).usage.format(name=folder.path.name),
        ]
    )


def where_it_is(folder: RunFolder, run: RunConfig, step: int) -> str:
    """The files of a run at `step`."""
    pictures = sorted(map(str, folder.samples.glob(f"{tag_of(step)}*")))
    files = {
        "checkpoint": next(iter(committed(folder.checkpoints)), None),
        "metrics": f"{folder.metrics}, {folder.curves}"
        if folder.curves.exists()
        else folder.metrics,
        "pictures": f"{', '.join(pictures) or 'none'} ({task_class(run.model).caption})",
    }
    return "\n".join(f"  {name:<11} {path}" for name, path in files.items())


def nothing_to_do(checkpoint: Path | None, step: int, run: RunConfig) -> str:
    """Of a run whose checkpoint is at `step`, the last one or beyond it."""
    if step == run.train.steps:
        return f"{checkpoint} is finished: step {step} of {run.train.steps}"
    return (
        f"{checkpoint} is at step {step}, beyond train.steps={run.train.steps}: nothing was done. "
        f"Give more than {step} to go on, or --resume an earlier checkpoint to go back"
    )
