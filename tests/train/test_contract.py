"""What a training step may ask of a device, counted on a CPU: counts, never times.

The meta device stands for a GPU: its tensors have no values, so that whatever would make the host
wait for one raises.
"""

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from json import dumps, loads
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from coordtok.config.load import load_config
from coordtok.config.schema import RunConfig
from coordtok.data.loader import Batch
from coordtok.data.sample import SampleId
from coordtok.train.tasks.generator import GeneratorTask
from coordtok.train.tasks.tokenizer import TokenizerTask

META = torch.device("meta")
CLIPS = 2
VIEWS = ("_unsafe_view", "detach", "split_with_sizes", "unbind")
BUDGET = Path(__file__).parents[1] / "fixtures" / "operators.json"
"""Operators of a forward and backward pass by preset, one layer of each kind; rewritten by
`python -m tests.train.test_contract`."""
PRESETS = ("quickstart", "tokenizer_l", "tokenizer_l_recipe", "dit_tiny")


class Operators(TorchDispatchMode):
    """Operators that run on the device but for views, and copies to it that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.blocking: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        first = result[0] if isinstance(result, (tuple, list)) else result
        if not (isinstance(first, torch.Tensor) and first.is_meta) or func.is_view:
            return result
        name = func.overloadpacket.__name__
        self.found[name] += name not in VIEWS
        is_copy = any(isinstance(each, torch.Tensor) and not each.is_meta for each in args)
        if is_copy and not kwargs.get("non_blocking"):
            self.blocking.append(name)
        return result


class Literals(TorchFunctionMode):
    """Python numbers made a tensor on the device, which the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.is_meta:
            self.found.append(func.__name__)
        return result


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", _no_autocast)


def shallow(name: str) -> RunConfig:
    """A preset with one layer of each kind."""
    run = load_config(name)
    if run.model.name == "dit":
        return replace(run, model=replace(run.model, layers=1, classes=3))
    layers = {f"{stack}_layers": 1 for stack in ("video", "plane", "decoder")}
    return replace(run, model=replace(run.model, **layers))


class Passes(NamedTuple):
    operators: Counter[str]
    waits: list[str]


def passes(run: RunConfig, real_frames: int | None = None) -> Passes:
    """Forward and backward pass of a micro-batch, whose second clip has so many frames."""
    ids = tuple(SampleId(0, 0, f"clip{number}") for number in range(CLIPS))
    task, data = (_generator if run.model.name == "dit" else _tokenizer)(run, real_frames)
    with META:
        model = task.model_class(run.model)
    with Operators() as operators, Literals() as literals:
        task.loss(model, Batch(data, ids, ()))["loss"].mean().backward()
    return Passes(+operators.found, operators.blocking + literals.found)


def _tokenizer(run: RunConfig, real_frames: int | None) -> tuple[TokenizerTask, dict]:
    num_frames = [run.model.frames, real_frames or run.model.frames]
    video = torch.zeros((CLIPS, *run.model.video_size, 3), dtype=torch.uint8)
    data = {"video": video, "num_frames": torch.tensor(num_frames)}
    return TokenizerTask(run, run.model, META), data


def _generator(run: RunConfig, real_frames: int | None) -> tuple[GeneratorTask, dict]:
    """Without shards, whose statistics are not asked here."""
    task = object.__new__(GeneratorTask)
    task.run, task.model, task.latent, task.device = run, run.model, run.model.latent, META
    task.statistics = Unnormalised()
    planes = {p.name: torch.zeros((CLIPS, *p.shape)) for p in run.model.latent.planes}
    return task, {**planes, "label": torch.tensor([0, 2])}


class Unnormalised:
    def normalise(self, planes: Any) -> Any:
        return planes


@pytest.mark.parametrize("name", PRESETS)
def test_forward_and_backward_keep_to_their_operators_and_wait_for_nothing(name: str) -> None:
    found = passes(shallow(name))
    assert found.operators - Counter(loads(BUDGET.read_text())[name]) == Counter(), "more than were"
    assert found.waits == []


def test_padded_clips_make_the_host_wait_for_nothing() -> None:
    assert passes(shallow("tokenizer_l"), real_frames=3).waits == []


def test_what_waits_is_found() -> None:
    for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero, bool):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            read(torch.zeros(3, device=META).sum())
    with Operators() as operators, Literals() as literals:
        torch.zeros(3).to(META)
        torch.zeros(3).to(META, non_blocking=True)
        torch.tensor(3, device=META)
    assert (operators.blocking, literals.found) == (["_to_copy"], ["tensor"])


def _no_autocast(*args: Any, **kwargs: Any) -> AbstractContextManager[None]:
    """torch.autocast, which is off throughout, knows no meta device."""
    return nullcontext()


if __name__ == "__main__":
    torch.autocast = _no_autocast  # type: ignore[misc, assignment]
    budget = {name: dict(sorted(passes(shallow(name)).operators.items())) for name in PRESETS}
    BUDGET.write_text(dumps(budget, indent=1) + "\n")
