#!/usr/bin/env python
"""Plan runs before they are paid for, and compare models under equal compute.

python scripts/scaling.py plan --config tokenizer_l --gpus 8
python scripts/scaling.py check
python scripts/scaling.py run STUDY.yaml
"""

import argparse
import json
import shlex
import sys
from itertools import product
from pathlib import Path
from typing import Any

from coordtok import cli
from coordtok.config.load import load_config
from coordtok.errors import ConfigError
from coordtok.scaling.checkpoints import CheckpointCosts, checkpoint_costs, contents
from coordtok.scaling.devices import DEVICES, device_named
from coordtok.scaling.law_report import points_of, write_law
from coordtok.scaling.memory import Zero
from coordtok.scaling.plan import Plan, fewest_ranks, lanes_of, make_plan, measured_pace
from coordtok.scaling.plan_plot import plot_memory
from coordtok.scaling.plan_report import as_dict, describe, side_by_side
from coordtok.scaling.ranking import as_table, ranking, write_ranking
from coordtok.scaling.runner import run_study
from coordtok.scaling.study import load_study, study_runs, write_configs
from coordtok.storage.files import write_whole
from coordtok.storage.json_files import read_json

MOST_RANKS = 8192
"""Whose files are looked at one by one."""
PLAN = """What a training run would need: parameters, FLOPs, memory of a rank, time of an update,
what loaders must give, checkpoints, days and energy, by arithmetic, in under a second and without
torch. What would keep it from working is named, with the nearest plan that works.

    python scripts/scaling.py plan --config tokenizer_l --deepspeed zero1 --gpus 8 --device h200
    python scripts/scaling.py plan --config tokenizer_l --days 7 --set train.steps=60000
    python scripts/scaling.py plan --config my.yaml --gpus 8 --set train.micro_batch=null

--set changes keys of the config (docs/config.md): train.steps, train.global_batch (all GPUs
together), train.micro_batch (null: the largest that fits), train.activation_checkpointing=selective
or true for less memory.

What a checkpoint costs each GPU to save and, on another number of them, to load:

    python scripts/scaling.py plan --config dit_7b --deepspeed zero3 --gpus 64 --resume-gpus 32

Several configs, JSONs or numbers of GPUs are put side by side:

    python scripts/scaling.py plan --config tokenizer_b tokenizer_l --gpus 8 64
    python scripts/scaling.py plan --config tokenizer_l --deepspeed zero1 zero3 --plot m.png

"MFU" is the share of the device's peak rate that the mathematics takes; "alone" Python's time that
nothing hides; "exposed" sending that no backward pass hides. `!` marks what does not fit. How far
the figures can be trusted: scaling.py check, docs/scaling.md.
"""
RUN = """Train the configs of a study under equal compute, and print a table of what they reached.

    python scripts/scaling.py run STUDY.yaml              # train what is not trained
    python scripts/scaling.py run STUDY.yaml --print      # the runs' commands, for a cluster
    python scripts/scaling.py run STUDY.yaml --table      # the table of what is there

A study file names configs, seeds and a budget (coordtok/scaling/study.py has one). Every run is an
ordinary training run in the study's folder. A study that was killed goes on when it is started
again; finished runs are left alone, and one that fails is started once more. With `decay` in the
study what its budgets have in common is trained once.
"""
CHECK = """What plans say beside what is found on this machine:

    parameters   of every preset                       the built model's, tensor by tensor (equal)
    flops        of a clip, every preset               torch's counter (1 %)
    activations  bytes kept for the backward pass      what autograd saves (5 %)
    memory       of a rank                             traced allocations, a GPU's peak (10 %)
    messages     bytes that two ranks hand in          DeepSpeed's comms logger (equal)
    time         of an update, calibrated by probes    the clock (15 % in the median)

    python scripts/scaling.py check                    # all of them: some minutes
    python scripts/scaling.py check memory time        # these two
"""
FIT = """How held-out loss falls with parameters and clips, from the finished runs of a study:

    L = E + A / N^a + B / D^b

with intervals, a check on the largest run, left out, and the best sizes of larger budgets. law.md,
law.png and runs.csv are left in the study's folder. Runs that cannot carry a law are said to be so:
a study for one has `budgets`, several, and configs of several sizes.
"""

TABLES = ("parameters", "flops", "activations", "memory", "messages", "time")


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="plan|check|run|fit", help="each has a --help"
    )
    _add_plan(commands.add_parser("plan", description=PLAN, help="what a run would need"))
    check = commands.add_parser("check", description=CHECK, help="plans beside what is found")
    check.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)} (default: all)"
    )
    check.add_argument("--json", metavar="PATH", help="write the tables there too")
    _add_run(commands.add_parser("run", description=RUN, help="train the configs of a study"))
    fit = commands.add_parser("fit", description=FIT, help="a law from the runs of a study")
    fit.add_argument("study", metavar="STUDY.yaml", help="whose finished runs are taken")
    fit.add_argument(
        "--fewest-updates",
        type=cli.positive,
        default=1,
        metavar="N",
        help="leave out runs of fewer updates: they end while they warm up, on no law",
    )
    return parser.parse_args()


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.add_argument(
        "--config", nargs="+", required=True, metavar="PRESET_OR_YAML", help="what to train"
    )
    plan.add_argument(
        "--deepspeed",
        nargs="+",
        default=["zero1"],
        metavar="JSON",
        help="how to shard it: files, or names of ds_configs/ (default: zero1)",
    )
    plan.add_argument(
        "--device",
        choices=sorted(DEVICES),
        default="h100-80g",
        metavar="NAME",
        help=f"one of {', '.join(DEVICES)} (default: %(default)s)",
    )
    many = plan.add_mutually_exclusive_group()
    many.add_argument("--gpus", nargs="+", type=cli.positive, metavar="N", help="how many of them")
    many.add_argument(
        "--days", type=cli.number, metavar="D", help="as few as finish within so many days"
    )
    plan.add_argument(
        "--interconnect",
        type=cli.number,
        metavar="GB/S",
        help="what a GPU sends to the others (default: its link on up to eight GPUs, else 50)",
    )
    plan.add_argument(
        "--calibrate",
        metavar="JSON",
        help="a result of `benchmark.py train --json` on one rank of that device, whose time is "
        "taken in place of the roofline's",
    )
    plan.add_argument(
        "--resume-gpus",
        type=cli.up_to(MOST_RANKS, 1),
        metavar="N",
        help="say what each of N GPUs, to which the run moves, opens and reads of a checkpoint "
        "(some seconds, where there are a thousand)",
    )
    plan.add_argument("--json", metavar="PATH", help="write the plans there too")
    plan.add_argument("--plot", metavar="PNG", help="draw a rank's memory, a bar for each plan")
    plan.add_argument(
        "--set", nargs="+", default=[], metavar="key.path=value", help="changes to all configs"
    )


def _add_run(run: argparse.ArgumentParser) -> None:
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


@cli.exit_on_user_error
def main() -> int:
    args = parse_args()
    commands = {"plan": _plan, "check": _check, "run": _run, "fit": _fit}
    return commands[args.command](args)


def _plan(args: argparse.Namespace) -> int:
    device = device_named(args.device)
    link = None if args.interconnect is None else args.interconnect * 1e9
    plans = []
    for config, sharding in product(args.config, args.deepspeed):
        run, zero = load_config(config, args.set), Zero.load(sharding, device.kind)
        pace = 1.0
        if args.calibrate is not None:
            pace = measured_pace(_read_result(args.calibrate), device, run.model.name)
        if args.days is not None:
            plans.append(fewest_ranks(run, zero, device, args.days, link, pace))
        plans += [make_plan(run, zero, device, each, link, pace) for each in args.gpus or []]
        if args.days is None and not args.gpus:
            plans.append(make_plan(run, zero, device, 1, link, pace))
    lanes = [lanes_of(plan.run) for plan in plans]
    costs = [_costs(plan, args.resume_gpus) for plan in plans]
    each = list(zip(plans, lanes, costs))
    if args.json is not None:
        found = [as_dict(*one) for one in each]
        write_whole(Path(args.json), (json.dumps(found, indent=1) + "\n").encode())
    if args.plot is not None:
        plot_memory(plans, Path(args.plot))
    print(describe(*each[0]) if len(plans) == 1 else side_by_side(plans), end="")
    return 0


def _costs(plan: Plan, loading: int | None) -> CheckpointCosts | None:
    if loading is None:
        return None
    if plan.ranks > MOST_RANKS:
        raise ConfigError(
            f"--resume-gpus looks at each GPU, and {plan.ranks:,} are more than {MOST_RANKS:,}; "
            "leave it out, or plan with fewer GPUs"
        )
    stage = plan.zero.stage
    return checkpoint_costs(*contents(plan.run), (plan.ranks, stage), (loading, stage))


def _check(args: argparse.Namespace) -> int:
    """Exit code 1 if a table does not hold."""
    for name in args.tables:
        if name not in TABLES:
            raise ConfigError(f"there is no table {name}; choose of {', '.join(TABLES)}")
    from coordtok.benchmarks.plan_check import check
    from coordtok.benchmarks.table import check_json_path, machine_facts

    check_json_path(args.json)
    found: dict[str, Any] = {"machine": machine_facts()}
    holds = True
    for name, table in check(args.tables or TABLES):
        print(table.text(), flush=True)
        found[name] = table.as_dict()
        holds = holds and table.holds
    if args.json is not None:
        write_whole(Path(args.json), (json.dumps(found, indent=1) + "\n").encode())
    return 0 if holds else 1


def _fit(args: argparse.Namespace) -> int:
    study = load_study(args.study)
    points = points_of(study_runs(study), args.fewest_updates)
    note = ""
    if args.fewest_updates > 1:
        note = f"Runs of fewer than {args.fewest_updates:,} updates are left out."
    print(write_law(points, Path(study.folder), note), end="")
    return 0


def _read_result(path: str) -> Any:
    try:
        return read_json(Path(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--calibrate {path} cannot be read ({error}); name a JSON") from None


def _run(args: argparse.Namespace) -> int:
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
