"""From a checkpoint of any ZeRO stage and number of ranks to an export."""

from pathlib import Path
from typing import Literal

import torch

from coordtok.config.load import build
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.card import WEIGHTS, Card, Origin
from coordtok.pretrained.read import first_difference
from coordtok.pretrained.write import check_target, write_export
from coordtok.storage.slice_layout import EMA_KIND, MASTER
from coordtok.train.checkpoint import read_state, read_whole
from coordtok.train.checkpoint_folder import find_checkpoint
from coordtok.train.checkpoint_index import DamagedCheckpoint, read_index
from coordtok.train.tasks.kinds import task_class


def export_checkpoint(
    path: str,
    folder: Path,
    weights: Literal["raw", "ema"] | None = None,
    dtype: torch.dtype = torch.float32,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> tuple[Path, Card]:
    """Write the model of a checkpoint, or of a run's newest one, as an export to `folder`.

    weights: as trained ("raw") or their moving average ("ema"); None takes the average where the
    run kept one. Returns the checkpoint that was read and the export's card.
    """
    check_target(folder, overwrite)
    if (Path(path) / WEIGHTS).is_file():
        raise CheckpointError(f"{path} is an export already; name a run or a checkpoint")
    checkpoint = find_checkpoint(Path(path))
    try:
        weights = _choose(weights, checkpoint)
        state = read_state(checkpoint)
        run = build(RunConfig, state.config)
        tensors = _read(checkpoint, run, weights)
    except DamagedCheckpoint as error:
        raise CheckpointError(f"{error}; name another checkpoint") from None
    history = {"run": state.config, "data": state.data}
    settings = task_class(run.model).export_settings(run, state.facts)
    card = Card(run.model, settings, Origin(weights, state.step, history))
    write_export(folder, card, tensors, dtype, overwrite=overwrite, progress=progress)
    return checkpoint, card


def _choose(weights: Literal["raw", "ema"] | None, checkpoint: Path) -> Literal["raw", "ema"]:
    has_average = read_index(checkpoint).has(EMA_KIND)
    if weights == "ema" and not has_average:
        raise CheckpointError(
            f"{checkpoint} holds no moving average (ema.decay was 0); export with --weights raw"
        )
    return weights or ("ema" if has_average else "raw")


def _read(
    checkpoint: Path, run: RunConfig, weights: Literal["raw", "ema"]
) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = task_class(run.model).model_class(run.model)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    difference = first_difference(read_index(checkpoint).shapes, shapes)
    if difference:
        raise CheckpointError(f"{checkpoint}: {difference}; it is of another model than it says")
    return read_whole(checkpoint, {"raw": MASTER, "ema": EMA_KIND}[weights])
