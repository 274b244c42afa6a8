"""Steps that runs of one config and seed have in common, trained once.

Under wsd (warm-up, stable, decay) the learning rate knows nothing of a run's length until it falls.
So a run with a larger budget is, step for step, the one with the next smaller budget up to where
that one's rate begins to fall, and can go on from its checkpoint there: a resume, which changes no
number (docs/guarantees.md). A ladder of budgets then costs its longest run and the others' ends.
"""

import os
import shutil
from pathlib import Path

from coordtok.scaling.study import StudyRun
from coordtok.storage.files import write_whole


def begin_at_prefix(run: StudyRun) -> int:
    """Give a run that has not begun what the run of the next smaller budget has of it: the
    checkpoint and the metrics up to where their ways part, so that it resumes there by itself.

    Returns:
        The step it begins at; 0 if it has begun, or if there is nothing to share.
    """
    prefix = run.prefix
    if prefix is None or run.folder.exists():
        return 0
    step = prefix.config.train.steps - prefix.config.optim.decay_steps
    tag = f"step_{step:08d}"
    shared = prefix.folder / "checkpoints" / tag
    if not (shared / "manifest.json").is_file():
        return 0
    unfinished = run.folder.with_name(f"{run.folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a kill left of an earlier try
    shutil.copytree(shared, unfinished / "checkpoints" / tag, copy_function=_link)
    write_whole(unfinished / "checkpoints" / "latest", f"{tag}\n".encode())
    # Lines beyond the step go when the run resumes.
    shutil.copyfile(prefix.folder / "metrics.jsonl", unfinished / "metrics.jsonl")
    unfinished.rename(run.folder)
    return step


def _link(source: str, target: str) -> None:
    """Files of a checkpoint are never changed, so one copy serves; on file systems without links
    it is a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(Path(source), Path(target))
