"""Runs that go on elsewhere: on other ranks, at other ZeRO stages, in another precision."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coordtok import distributed
from coordtok.config.load import build
from coordtok.config.schema import RunConfig
from coordtok.train.checkpoint import STATE_FILE, read_state, read_whole, restore
from coordtok.train.ema import EMA
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.run import prepare
from coordtok.train.saver import Saver
from coordtok.train.tasks.kinds import task_class
from tests.support.ranks import call
from tests.support.runs import Run, json_of
from tests.train.test_elastic import check_same

NewRun = Callable[..., Run]
LEGS = [(1, "zero1"), (2, "zero2"), (4, "zero3"), (2, "zero1"), (1, "zero1")]
STEPS = 3
"""Of a leg."""


@pytest.mark.slow
def test_a_run_moves_from_rank_to_rank_and_stage_to_stage(new_run: NewRun, tmp_path: Path) -> None:
    """In fp32. Before each leg its ranks restore what the last one left and save it again."""
    whole, moved = new_run("whole"), new_run("moved")
    last = len(LEGS) * STEPS
    whole(f"train.steps={last}", json=json_of("zero1", tmp_path, bf16=False))
    for leg, (ranks, name) in enumerate(LEGS):
        sharding = json_of(name, tmp_path, bf16=False)
        if leg:
            source = newest(moved, leg * STEPS)
            call(save_again, sharding, source, tmp_path / f"again-{leg}", ranks=ranks)
        moved(f"train.steps={(leg + 1) * STEPS}", ranks=ranks, json=sharding)
    assert list(moved.losses()) == list(range(1, last + 1))
    assert moved.losses() == pytest.approx(whole.losses(), rel=1e-5)
    for kind in ("master", "ema"):
        found, expected = (read_whole(newest(run, last), kind) for run in (moved, whole))
        # Biases of keys have no gradient but rounding, which Adam scales up.
        assert all(torch.allclose(found[name], expected[name], atol=5e-5) for name in expected)


@pytest.mark.slow
def test_a_run_in_bf16_goes_on_as_one_in_fp32(new_run: NewRun, tmp_path: Path) -> None:
    """With the masters and moments of its bf16, as torch alone trains with them."""
    run = new_run()
    run("train.steps=4", ranks=2, json=json_of("zero3", tmp_path))
    source = newest(run, 4)
    assert json.loads((source / STATE_FILE).read_text())["precision"] == "bfloat16"
    sharding = json_of("zero3", tmp_path, bf16=False)
    call(save_again, sharding, source, tmp_path / "again", ranks=2)
    run("train.steps=8", ranks=2, json=sharding)
    call(train_plainly, source, tmp_path / "plain.json", ranks=1)
    expected = json.loads((tmp_path / "plain.json").read_text())
    assert len(expected) == 4
    assert [run.losses()[step] for step in (5, 6, 7, 8)] == pytest.approx(expected, rel=1e-5)


def newest(run: Run, step: int) -> Path:
    return run.folder / "checkpoints" / f"step_{step:08d}"


def save_again(sharding: str, source: str, target: str) -> None:
    """Restore a checkpoint and save it as it is: every number of it is there, bit for bit."""
    distributed.setup()
    state = read_state(Path(source))
    run = build(RunConfig, state.config)
    _, masters = build_engine(
        lambda: task_class(run.model).model_class(run.model),
        run,
        load_sharding(sharding, run, distributed.world_size()),
    )
    ema = EMA(masters, run.ema)
    restore(Path(source), masters, ema)
    saver = Saver(Path(target), masters, ema, keep_last=0, background=True)
    saver.save(state, 0.0)
    saver.finish()
    if distributed.is_main():
        check_same(Path(source), Path(target) / Path(source).name)
    distributed.barrier()


def train_plainly(source: str, target: str) -> None:
    """The losses of four steps from a checkpoint, by torch alone, in float32."""
    distributed.setup()
    state = read_state(Path(source))
    parts = prepare(build(RunConfig, state.config), state, allow_grown_data=False)
    model = parts.task.build_model()
    weights, first, second = (
        read_whole(Path(source), kind)
        for kind in ("master", "optimizer.exp_avg", "optimizer.exp_avg_sq")
    )
    optim = parts.run.optim
    optimizer = torch.optim.AdamW(
        model.parameters(), optim.lr, optim.betas, optim.eps, optim.weight_decay
    )
    for name, parameter in model.named_parameters():
        parameter.data.copy_(weights[name])
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state.step)),
            "exp_avg": first[name],
            "exp_avg_sq": second[name],
        }
    losses = []
    batches = iter(parts.loader)
    for _ in range(4):
        batch, _ = next(batches)
        loss = parts.task.loss(model, batch)["loss"].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    Path(target).write_text(json.dumps(losses))
