"""What command lines share: usage errors of one line, how a command ends, and common options.

Nothing here reaches torch. A script reads its command line first and imports what computes inside
its `main`, so that --help and a mistyped option answer at once.
"""

import argparse
import functools
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeAlias, get_args, get_type_hints

from coordtok.config.load import preset_names
from coordtok.config.sampling import SamplerConfig
from coordtok.config.sharding import shipped_jsons
from coordtok.config.training import MOST_POINTS
from coordtok.endings import run_endings
from coordtok.errors import ConfigError, as_typed, for_user, one_line

P = ParamSpec("P")

Options: TypeAlias = argparse._ActionsContainer
"""A parser, or a group of its options."""

DTYPES = ("float32", "bfloat16")
GROUPINGS = ("strided", "contiguous", "random")
MOST_COUNTED = 1_000_000
MOST_BATCH, MOST_WORKERS = 4096, 256
_LONGEST_SHOWN = 40
SAMPLERS = get_args(get_type_hints(SamplerConfig)["name"])


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and a `ConfigError`, as all mistakes of a user are, and
    whose description keeps its lines."""

    def __init__(
        self, description: str | None, *, prog: str | None = None, epilog: str | None = None
    ) -> None:
        keep_lines = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=epilog, formatter_class=keep_lines)
        self.register("type", int, whole_number)
        self.register("type", float, number)

    def format_help(self) -> str:
        return as_typed(super().format_help())

    def error(self, message: str) -> NoReturn:
        raise ConfigError(re.sub(r"^argument (\S+): ", r"\1 ", message) + " (see --help)")


def whole_number(text: str) -> int:
    """A number of at most 64 bits."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{_cut(text)}: it must be a whole number") from None
    return _within(value, text, -(1 << 63), (1 << 63) - 1)


def positive(text: str) -> int:
    """A number of things that are counted one by one."""
    return _within(whole_number(text), text, 1, MOST_COUNTED)


def up_to(most: int, least: int | None = None) -> Callable[[str], int]:
    """The type of a number of things of which each takes memory or time. Without `least`, what uses
    the number says how many are needed."""
    return lambda text: _within(whole_number(text), text, least, most)


def _within(value: int, text: str, least: int | None, most: int) -> int:
    if least is not None and value < least:
        raise argparse.ArgumentTypeError(f"{_cut(text)}: it must be at least {least:,}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{_cut(text)}: it must be at most {most:,}")
    return value


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{_cut(text)}: it must be a number")
    return value


def exit_on_user_error(main: Callable[P, int | None]) -> Callable[P, int]:
    """Wrap a command's `main`: its return value is the exit code; a `UserError`, and what the
    operating system refuses, is printed on one line and gives 2, Ctrl-C 130 as in a shell. What all
    ranks find, rank 0 alone prints."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            _check_surroundings()
            code = main(*args, **kwargs) or 0
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            _tell("interrupted", shared=True)
            return 130
        except Exception as error:
            if isinstance(error, OSError) and error.filename is None and _is_output_broken():
                error.filename = "standard output"
            if (told := for_user(error)) is None:
                raise
            _tell(f"error: {one_line(told)}", told.shared)
            return 2

    return wrapped


def _check_surroundings() -> None:
    """Give a command the streams and the folder that it may take for granted."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: the next file that is opened would take its number
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    try:
        os.getcwd()
    except OSError as error:
        raise ConfigError(
            f"the working folder cannot be used ({error.strerror}); change to another one"
        ) from None


def _tell(line: str, shared: bool = False) -> None:
    if not shared or is_first_rank():
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def _is_output_broken() -> bool:
    """Whether standard output takes no more, not even a line's end; it leads nowhere then, or the
    interpreter would fail on what is left when it ends."""
    try:
        print(flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def is_first_rank() -> bool:
    """Whether this process is the rank that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def leave(code: int) -> NoReturn:
    """End a rank with exit `code`, without the teardown of libraries.

    The threads of a gloo group at times abort a process that is ending ("terminate called without
    an active exception"), and a launcher takes that for a failed run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is ending
    run_endings()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def add_model(
    options: Options, help: str = "an export, as scripts/export.py makes it", required: bool = True
) -> None:
    options.add_argument("--model", metavar="DIR", required=required, help=help)


def add_shards(options: Options, help: str) -> None:
    options.add_argument("--shards", metavar="DIR", required=True, help=help)


def add_output(options: Options, help: str) -> None:
    options.add_argument("--output", metavar="DIR", type=Path, required=True, help=help)


def add_num(options: Options, help: str, default: int | None = None) -> None:
    """-n, --num: launchers stop at the long form."""
    options.add_argument(
        "-n",
        "--num",
        type=int,
        metavar="N",
        default=default,
        help=f"{help}; launchers take --num for theirs: write -n there",
    )


def add_seed(options: Options, help: str) -> None:
    options.add_argument("--seed", type=int, metavar="N", default=0, help=f"{help} (default: 0)")


def add_compute(options: Options) -> None:
    """--device and --compute-dtype."""
    add_device(options)
    options.add_argument(
        "--compute-dtype",
        "--dtype",
        choices=DTYPES,
        help="convert the weights to this before computing (default: the one they are stored in)",
    )


def add_device(options: Options) -> None:
    options.add_argument("--device", help="to compute on (default: each rank's GPU, or the CPU)")


def add_decoding(options: Options, batch: str, default: int = 1) -> None:
    """--grouping, --points-per-pass and --batch; `batch` says what is taken at once."""
    options.add_argument(
        "--grouping",
        choices=GROUPINGS,
        default="strided",
        help="which patches are decoded together: whole frames spread over a clip, neighbouring "
        "frames, or random patches as in training, where one frame costs as much as all; results "
        "depend on it (default: %(default)s; docs/grouping.md)",
    )
    options.add_argument(
        "--points-per-pass",
        type=up_to(MOST_POINTS),
        metavar="N",
        help="how many patches are decoded together, about; results depend on it (default: as the "
        "model was trained)",
    )
    options.add_argument(
        "--batch",
        type=up_to(MOST_BATCH),
        metavar="N",
        default=default,
        help=f"{batch} at once (default: %(default)s)",
    )


def add_sampler(options: Options) -> None:
    """--sampler and --steps."""
    options.add_argument(
        "--sampler",
        choices=SAMPLERS,
        help="ODE: euler, heun, dopri5; SDE: the other (default: as the model's config says)",
    )
    options.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="in time, for all but dopri5 (default: as the model's config says)",
    )


def add_export_target(options: Options) -> None:
    """OUT_DIR, --store-dtype and --overwrite of a command that makes an export."""
    options.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="folder to make")
    options.add_argument(
        "--store-dtype",
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="of the weights in the export (default: %(default)s)",
    )
    options.add_argument("--overwrite", action="store_true", help="replace an export at OUT_DIR")


def add_run(options: Options, config: str, help: str) -> None:
    """What describes a training run: --deepspeed, --config and overrides, which a parser takes
    between options by `parse_intermixed_args`."""
    options.add_argument(
        "--deepspeed",
        metavar="JSON",
        required=True,
        help="how to shard and at what precision: a file of ds_configs/ or your own, or one of "
        f"{', '.join(shipped_jsons())}",
    )
    options.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        default=config,
        help=f"{help}: a YAML file or one of {', '.join(preset_names())} (default: %(default)s)",
    )
    options.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="changes to the config"
    )


def add_launcher(options: Options) -> None:
    """--local_rank, which the deepspeed launcher hands to each of its processes."""
    options.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
