"""Kill a training run at random moments, as often as one likes, and compare it with one left alone:

    python -m tests.campaign.kills --count 100 --ranks 2 --seed 0

Ends with 0 if every loss and validation PSNR has the same bits, with 1 otherwise.
"""

import argparse
import tempfile
from pathlib import Path

from tests.support.runs import kill_at_random, make_run, write_shards

STEPS_PER_KILL = 60


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="kills (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        same = survives(Path(folder), args.count, args.ranks, args.seed)
    print(
        f"{args.count} kills of {args.ranks} ranks, seed {args.seed}: "
        f"{'the same losses and validation' if same else 'OTHER LOSSES OR VALIDATION'}"
    )
    return 0 if same else 1


def survives(folder: Path, kills: int, ranks: int, seed: int) -> bool:
    """Whether a run that is killed `kills` times logs the bits of one that is not."""
    shards = write_shards(folder / "train", samples=14, lanes=4)
    val_shards = write_shards(folder / "val", samples=3, lanes=1, seed=1)
    sections = {
        "train": {"save_every": 5, "eval_every": 50, "keep_last": 2}, "data": {"workers": 2},
    }  # fmt: skip
    whole, killed = (
        make_run(folder, name, shards, val_shards, **sections) for name in ("whole", "killed")
    )
    steps = STEPS_PER_KILL * kills
    whole(f"train.steps={steps}", ranks=ranks)
    kill_at_random(killed, kills, steps, ranks, seed)
    killed(f"train.steps={steps}", ranks=ranks)
    return killed.losses() == whole.losses() and killed.lines("val_psnr") == whole.lines("val_psnr")


if __name__ == "__main__":
    raise SystemExit(main())
