"""What a training step may ask of a device, counted on a CPU: counts, never times.

The meta device stands for a GPU: its tensors have no values, so that whatever would make the host
wait for one raises.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from itertools import chain, count, islice
from json import dumps, loads
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from coordtok import distributed
from coordtok.config.load import load_config
from coordtok.config.schema import RunConfig
from coordtok.data.loader import Batch
from coordtok.data.sample import SampleId
from coordtok.data.sequence import LoaderState
from coordtok.errors import DataError
from coordtok.models.dit import DiTBlock
from coordtok.models.layers import CrossSelfBlock, ViTBlock
from coordtok.train.checkpoint import read_state
from coordtok.train.checkpoint_folder import committed
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.loop import Progress, Trainer
from coordtok.train.run import assemble, prepare
from coordtok.train.run_folder import RunFolder
from coordtok.train.signals import StopRequest
from coordtok.train.tasks.generator import GeneratorTask
from coordtok.train.tasks.tokenizer import TokenizerTask
from tests.support.ranks import ROOT, call
from tests.support.runs import FP32, Run

META = torch.device("meta")
CLIPS = 2
VIEWS = ("_unsafe_view", "detach", "split_with_sizes", "unbind")
BUDGET = ROOT / "tests" / "fixtures" / "operators.json"
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


def memory_of(length: int) -> torch.Tensor:
    return torch.randn(2, length, 16)


BLOCKS = {
    "video": (lambda: ViTBlock(16, 2, 2.0, qkv_bias=False), ()),
    "padded": (lambda: ViTBlock(16, 2, 2.0, qkv_bias=False), (torch.arange(5) < 3,)),
    "plane": (lambda: CrossSelfBlock(16, 2, 2.0), (memory_of(9),)),
    "few": (lambda: CrossSelfBlock(16, 2, 2.0, projects_memory=False), (memory_of(9),)),
    "dit": (lambda: DiTBlock(16, 2, 2.0), (torch.randn(2, 16),)),
}


@pytest.mark.parametrize(("make", "context"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_is_one_graph_for_all_layers_and_micro_batches(make: Any, context: Any) -> None:
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    for block in (make(), make()):
        compiled = torch.compile(block.forward, backend=backend, fullgraph=True, dynamic=False)
        for _ in range(2):
            tokens = torch.randn(2, 5, 16)
            given = [each.expand(2, -1) if each.ndim == 1 else each for each in context]
            result = compiled(tokens, *given)
            result.sum().backward()
            assert torch.equal(result, block(tokens, *given))
    assert len(graphs) == 1


def test_what_waits_is_found() -> None:
    for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.nonzero, bool):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            read(torch.zeros(3, device=META).sum())
    with Operators() as operators, Literals() as literals:
        torch.zeros(3).to(META)
        torch.zeros(3).to(META, non_blocking=True)
        torch.tensor(3, device=META)
    assert (operators.blocking, literals.found) == (["_to_copy"], ["tensor"])


class Engine:
    """Notes what is asked of it; an update whose gradient is not a number is not taken."""

    optimizer = SimpleNamespace(param_groups=[])

    def __init__(self, micro_batches: int) -> None:
        self.events: list[str] = []
        self._micro_batches, self._gradient, self._steps = micro_batches, 0.0, 0

    def gradient_accumulation_steps(self) -> int:
        return self._micro_batches

    def backward(self, loss: torch.Tensor) -> None:
        self.events.append("backward")
        self._gradient += float(loss)

    def step(self) -> None:
        self._steps += 1
        if self._steps % self._micro_batches == 0:
            self.events.append("update")
            self._applied, self._gradient = self._gradient == self._gradient, 0.0

    def was_step_applied(self) -> bool:
        return self._applied


def trainer(steps: int, micro_batches: int, fails_at: int | None = None) -> Trainer:
    """Of a loader whose micro-batches are numbered from 0."""
    run = load_config("tokenizer_tiny", [f"train.steps={steps}", "optim.warmup_steps=0"])
    engine: Any = Engine(micro_batches)

    def fetch() -> Iterator[tuple[Batch, Any]]:
        for number in count():
            engine.events.append(f"fetch {number}")
            if number == fails_at:
                raise DataError("the disk is gone")
            yield Batch({}, (), ()), number

    parts: dict[str, Any] = dict.fromkeys(each.name for each in fields(Trainer) if each.init)
    parts |= {"run": run, "engine": engine, "batches": fetch(), "task": SimpleNamespace(loss=_loss)}
    parts |= {"progress": Progress(0, 0.0, 0, "start"), "stop": SimpleNamespace(is_set=False)}
    return Trainer(**parts)


def _loss(engine: Engine, batch: Batch) -> dict[str, torch.Tensor]:
    return {"loss": torch.ones(2)}


def test_each_micro_batch_is_fetched_after_the_backward_pass_of_the_one_before() -> None:
    made = trainer(steps=2, micro_batches=2)
    made.fetch_first()
    assert [step for step, _ in made.steps()] == [1, 2]
    assert made.engine.events == [
        "fetch 0", "backward", "fetch 1", "backward", "fetch 2", "update",
        "backward", "fetch 3", "backward", "update",
    ]  # fmt: skip


def test_a_step_without_all_its_clips_is_dropped() -> None:
    """The last clips are repeated, since ranks meet in every pass; then none takes the update."""
    made = trainer(steps=9, micro_batches=3, fails_at=4)
    made.fetch_first()
    assert [step for step, _ in made.steps()] == [1]
    assert made.engine.events.count("backward") == 6
    assert not made.engine.was_step_applied()
    assert (made.progress.step, made.progress.loader) == (1, 2)


def test_ranks_of_a_loader_that_fails_end_together_at_the_last_whole_step(
    new_run: Callable[..., Run],
) -> None:
    run = new_run(train={"micro_batch": 1, "save_every": 99})
    call(fail_on_rank_1, run.config, ranks=2)
    assert [line["step"] for line in run.lines("loss")] == [1]
    checkpoints = committed(run.folder / "checkpoints")
    assert [path.name for path in checkpoints] == ["step_00000001"]
    assert LoaderState.from_json(read_state(checkpoints[0]).loader).position == 4


def fail_on_rank_1(config: str) -> None:
    """At the second of two micro-batches of step 2."""
    distributed.setup()
    run = load_config(config)
    folder = RunFolder(run.run_dir)
    distributed.run_on_main(folder.create)
    parts, sharding = prepare(run, None, False), load_sharding(str(FP32), run, 2)
    made = assemble(parts, sharding, folder, None, None, StopRequest())
    if distributed.rank() == 1:
        made.batches = chain(islice(made.batches, 3), _broken())
    made.begin()
    with pytest.raises(DataError, match="the disk is gone"), made.saver:
        made.fit()
    distributed.barrier()


def _broken() -> Iterator[Any]:
    raise DataError("the disk is gone")
    yield


def test_updates_of_deepspeed_wait_for_the_gradient_norm_and_drop_what_is_not_finite() -> None:
    call(check_updates, ranks=1)


UPDATE_WAITS = {
    ("zero1", "float32", 1): 3,
    ("zero1", "bfloat16", 1): 4,
    ("zero1", "bfloat16", 2): 3,
    ("zero2", "bfloat16", 1): 4,
    ("zero2", "bfloat16", 2): 4,
    ("zero3", "bfloat16", 1): 2,
}
"""Numbers that DeepSpeed 0.19 reads in an update, one after another, by JSON, precision and
micro-batches: of the norm, and in bf16 or ZeRO-3 whether all gradients are finite."""


def check_updates() -> None:
    distributed.setup()
    found = {}
    for json, precision, passes in UPDATE_WAITS:
        batch = [f"train.global_batch={2 * passes}", "train.micro_batch=2"]
        run = load_config("quickstart", [*batch, "optim.name=adamw"])
        sharding = load_sharding(json, run, 1).resuming(precision)
        engine, masters = build_engine(lambda: nn.Linear(3, 3), run, sharding)
        inputs = torch.ones((2, 3), dtype=sharding.dtype)
        accumulate(engine, inputs, 1.0)
        with HostReads() as reads:
            engine.step()
        assert engine.was_step_applied()
        found[json, precision, passes] = reads.found
        before = {name: held.values.clone() for name, held in masters.slices().items()}
        accumulate(engine, inputs, torch.nan)
        engine.step()
        assert not engine.was_step_applied()
        for name, held in masters.slices().items():
            assert torch.equal(held.values, before[name])
    assert found == UPDATE_WAITS


def accumulate(engine, inputs: torch.Tensor, scale: float) -> None:
    """Backward passes up to an update."""
    while True:
        engine.backward(engine(inputs).square().sum() * scale)
        if engine.is_gradient_accumulation_boundary():
            break
        engine.step()


class HostReads(TorchDispatchMode):
    """Numbers of tensors that become Python's: on a GPU the host waits for each."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def _no_autocast(*args: Any, **kwargs: Any) -> AbstractContextManager[None]:
    """torch.autocast, which is off throughout, knows no meta device."""
    return nullcontext()


if __name__ == "__main__":
    torch.autocast = _no_autocast  # type: ignore[misc, assignment]
    budget = {name: dict(sorted(passes(shallow(name)).operators.items())) for name in PRESETS}
    BUDGET.write_text(dumps(budget, indent=1) + "\n")
