"""Kill a training run at random moments, as often as one likes, and compare it with one left alone:

    python -m tests.campaign.kills --count 100 --ranks 2 --seed 0

A quarter of the kills is timed into the writing of a checkpoint (tests.support.runs). Ends with 0
if every loss and validation PSNR has the same bits, with 1 otherwise.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.support.runs import finish_both, kill_at_random, make_run, write_shards


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="kills (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        same, steps, saving = survives(Path(folder), args.count, args.ranks, args.seed)
    print(
        f"{args.count} kills of {args.ranks} ranks, {saving} of them while a checkpoint was "
        f"written, seed {args.seed}: over {steps} steps "
        f"{'the same losses and validation' if same else 'OTHER LOSSES OR VALIDATION'}, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 0 if same else 1


def survives(folder: Path, kills: int, ranks: int, seed: int) -> tuple[bool, int, int]:
    """Whether a run that is killed `kills` times logs the bits of one that is not; of how many
    steps, and how many kills found it saving."""
    shards = write_shards(folder / "train", samples=14, lanes=4)
    val_shards = write_shards(folder / "val", samples=3, lanes=1, seed=1)
    sections = {
        "train": {"save_every": 5, "eval_every": 20, "keep_last": 2}, "data": {"workers": 2},
    }  # fmt: skip
    whole, killed = (
        make_run(folder, name, shards, val_shards, **sections) for name in ("whole", "killed")
    )
    saving = kill_at_random(killed, kills, ranks, seed)
    steps = finish_both(whole, killed, ranks)
    same = killed.losses() == whole.losses()
    same = same and killed.lines("val_psnr") == whole.lines("val_psnr")
    return same, steps, saving


if __name__ == "__main__":
    raise SystemExit(main())
