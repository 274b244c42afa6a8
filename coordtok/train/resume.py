"""Where a run starts: which checkpoint `--resume` means, and whether it is of this run.

A changed model or dataset is an error that names the difference; what may change between starts is
how long to train, how to shard, and anything else that a checkpoint does not fix.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coordtok import distributed
from coordtok.config.load import build, to_dict
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.train.checkpoint import TrainState
from coordtok.train.checkpoint_folder import committed, find_checkpoint
from coordtok.train.run_folder import RunFolder


def choose_checkpoints(folder: RunFolder, resume: str) -> Sequence[Path | None]:
    """The checkpoints of which `resume` ("auto", "none", or a path) means the first that is not
    damaged; None is to start afresh. All ranks call it together."""
    if resume == "none":
        if folder.is_used:
            raise CheckpointError(
                f"--resume none, but {folder.path} holds a run; choose another run_dir, "
                "or drop the flag to continue that run"
            )
        return [None]
    if resume == "auto":
        return distributed.broadcast(committed(folder.checkpoints)) or [None]
    try:
        checkpoint = find_checkpoint(Path(resume))
    except CheckpointError as error:
        raise CheckpointError(f"--resume {error}, or give auto or none") from None
    if folder.is_used and not is_inside(checkpoint, folder):
        raise CheckpointError(
            f"--resume {resume} is of another run, and {folder.path} already holds one; choose a "
            "new run_dir, or drop the flag to continue what is there"
        )
    return [checkpoint]


def is_inside(checkpoint: Path, folder: RunFolder) -> bool:
    """Whether a checkpoint is one of the run in `folder`."""
    return checkpoint.resolve().parent == folder.checkpoints.resolve()


def check_same_run(
    state: TrainState, run: RunConfig, data: list[dict[str, Any]], allow_grown_data: bool
) -> None:
    """Raise a `CheckpointError` that names how the checkpoint's model, seed or data differ."""
    then = to_dict(build(RunConfig, state.config))  # fields it did not know have their defaults
    now = to_dict(run)
    for key in ("model", "seed"):
        for name, then_value, now_value in _differences(then[key], now[key], key):
            raise CheckpointError(
                f"{name} is {now_value}, but the checkpoint was trained with {then_value}; "
                "set it back, or start a new run_dir (train.init_from takes weights alone)"
            )
    if then["optim"]["name"] != now["optim"]["name"]:
        raise CheckpointError(
            f"optim.name is {now['optim']['name']}, but the checkpoint has the state of "
            f"{then['optim']['name']}; set it back, or take its weights alone with train.init_from"
        )
    if _identity(state.data) != _identity(data) and not allow_grown_data:
        raise CheckpointError(
            f"the data changed since the checkpoint: {_describe(state.data)} then, "
            f"{_describe(data)} now; restore it, or accept it with --allow-grown-data"
        )
    if then["data"]["shuffle_block"] != run.data.shuffle_block:
        raise CheckpointError(
            f"data.shuffle_block is {run.data.shuffle_block}, but the checkpoint's order was made "
            f"with {then['data']['shuffle_block']}; set it back"
        )


def changes(state: TrainState, run: RunConfig) -> list[str]:
    """What of the config is another since the checkpoint: `optim.lr 0.0002 -> 0.0001`."""
    then = to_dict(build(RunConfig, state.config))
    return [
        f"{name} {before} -> {after}"
        for section, value in to_dict(run).items()
        for name, before, after in _differences(then[section], value, section)
    ]


def data_changed(state: TrainState, data: list[dict[str, Any]]) -> bool:
    return _identity(state.data) != _identity(data)


def _differences(then: Any, now: Any, name: str) -> list[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            difference
            for key in sorted({*then, *now}, key=lambda key: (key != "name", key))
            for difference in _differences(then.get(key), now.get(key), f"{name}.{key}")
        ]
    return [] if then == now else [(name, then, now)]


def _identity(data: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(source["fingerprint"], source["weight"]) for source in data]


def _describe(data: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{source['path']} ({source['samples']} samples, weight {source['weight']}, "
        f"fingerprint {source['fingerprint'][:8]})"
        for source in data
    )
