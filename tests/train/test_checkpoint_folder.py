"""Which checkpoint a path means."""

from pathlib import Path

import pytest

from coordtok.errors import CheckpointError
from coordtok.train.checkpoint_folder import committed, find_checkpoint, rewind


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with checkpoints of steps 1 to 3, of which the third was never committed."""
    checkpoints = tmp_path / "run/checkpoints"
    for name in ("step_00000001", "step_00000002", "step_00000003"):
        (checkpoints / name).mkdir(parents=True)
        (checkpoints / name / "manifest.json").write_text("{}")
    (checkpoints / "latest").write_text("step_00000002\n")
    return tmp_path / "run"


def test_a_run_means_its_newest_committed_checkpoint(run: Path) -> None:
    checkpoints = run / "checkpoints"
    assert find_checkpoint(run) == checkpoints / "step_00000002"
    assert find_checkpoint(checkpoints / "step_00000001") == checkpoints / "step_00000001"
    rewind(checkpoints, checkpoints / "step_00000001")
    assert committed(checkpoints) == [checkpoints / "step_00000001"]
    assert find_checkpoint(run) == checkpoints / "step_00000001"


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"step_2", b"../../step_00000002", b"zzz"])
def test_a_damaged_latest_is_named(run: Path, text: bytes) -> None:
    (run / "checkpoints/latest").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"latest is damaged: write .* into it, as step_0"):
        find_checkpoint(run)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "nowhere: no such folder; name a run folder or one of its step_"),
        ("run", "run: that run has no complete checkpoint; name a run folder"),
        ("run/checkpoints/step_00000002", "not a complete checkpoint .no manifest.json."),
        ("run/checkpoints", "not a complete checkpoint"),
    ],
)
def test_what_is_no_complete_checkpoint_is_named(run: Path, path: str, message: str) -> None:
    (run / "checkpoints/latest").unlink()
    (run / "checkpoints/step_00000002/manifest.json").unlink()
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(run.parent / path)
