#!/usr/bin/env python
"""Studies of models under equal compute.

    python scripts/scaling.py run STUDY.yaml              # train what is not trained, print a table
    python scripts/scaling.py run STUDY.yaml --print      # the runs' commands, for a cluster
    python scripts/scaling.py run STUDY.yaml --table      # the table of what is there

A study file names configs, seeds and a budget (coordtok/scaling/study.py has one). Every run is an
ordinary training run in the study's folder. A study that was killed goes on when it is started
again; finished runs are left alone, and one that fails is started once more.
"""

import argparse
import shlex
import sys
from pathlib import Path

from coordtok import cli
from coordtok.scaling.ranking import as_table, ranking, write_ranking
from coordtok.scaling.runner import run_study
from coordtok.scaling.study import load_study, study_runs, write_configs


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    commands = parser.add_subparsers(
        dest="command",
        required=True,
        metavar="run",
        help="train the configs of a study and rank them",
    )
    run = commands.add_parser("run", description=__doc__, help="train the configs of a study")
    run.add_argument("study", metavar="STUDY.yaml", help="configs, seeds and budget")
    run.add_argument(
        "--parallel",
        type=cli.positive,
        default=1,
        metavar="N",
        help="runs side by side, each on its share of the cores (default: %(default)s)",
    )
    shown = run.add_mutually_exclusive_group()
    shown.add_argument("--print", action="store_true", help="print the runs' commands and stop")
    shown.add_argument("--table", action="store_true", help="print the table and stop")
    return parser.parse_args()


@cli.exit_on_user_error
def main() -> int:
    args = parse_args()
    study = load_study(args.study)
    runs = study_runs(study)
    if args.table:
        print(as_table(ranking(runs)), end="")
        return 0
    write_configs(runs)
    if args.print:
        print("\n".join(shlex.join(run.command()) for run in runs))
        return 0
    failed = 0
    for outcome in run_study(runs, args.parallel):
        failed += outcome.failed
        state = f"failed, see {outcome.log}" if outcome.failed else "finished"
        print(f"{outcome.run.folder}: {state}", file=sys.stderr, flush=True)
    rows = ranking(runs)
    write_ranking(rows, Path(study.folder))
    print(as_table(rows), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
