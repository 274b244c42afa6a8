"""What a run leaves to look at."""

import signal
from collections.abc import Callable

import av
import pytest
from PIL import Image

from tests.support.runs import STOPPED, Run, wait_for_step

NewRun = Callable[..., Run]


def test_curves_pictures_a_film_and_what_a_step_takes(new_run: NewRun) -> None:
    run = new_run(train={"curves": True})
    output = run(ranks=2)
    assert "step 0: PSNR" in output
    assert "on the first 3 held-out clips" in output
    assert "(mean frame " in output
    for step in (0, 6):
        with av.open(str(run.folder / f"samples/step_{step:08d}_held_out.mp4")) as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert [frame.shape for frame in frames] == [(256, 512, 3)] * 8
        assert (run.folder / f"samples/step_{step:08d}_held_out.png").is_file()
    assert Image.open(run.folder / "curves.png").size[0] == 1000
    for line in run.lines("loss"):
        assert line["tflops_per_rank"] > 0
        assert 0.05 < line["host_peak_gib"] < 10


def test_a_stopped_run_has_pictures_and_a_checkpoint(new_run: NewRun) -> None:
    run = new_run()
    started = run.start("train.steps=100000")
    wait_for_step(run, 2)
    started.signal(signal.SIGUSR1)
    assert started.wait() == [STOPPED], started.output
    step = max(run.losses())
    assert f"checkpoint  {run.folder}/checkpoints/step_{step:08d}" in started.output
    assert f"samples/step_{step:08d}_held_out.png" in started.output


def test_tensorboard_has_the_metrics(new_run: NewRun) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = new_run(tensorboard={"enabled": True})
    run("train.steps=2")
    run("train.steps=3")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("loss")}
    assert losses == pytest.approx(run.losses(), rel=1e-6)
    assert [event.step for event in events.Images("samples/held_out")] == [0, 2, 3]
