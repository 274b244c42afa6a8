"""A picture of the memory of a rank, plan by plan."""

from collections.abc import Sequence
from pathlib import Path

from coordtok.errors import ConfigError
from coordtok.scaling.plan import Plan

_GIB = 2.0**30


def plot_memory(plans: Sequence[Plan], path: Path) -> None:
    """A PNG at `path` with a bar for each plan, by what memory is for, and a line for what its
    device has.

    Raises:
        ConfigError: matplotlib is not installed, or `path` cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'coordtok[evaluation]'") from None
    figure = Figure(figsize=(9.0, 1.5 + 0.5 * len(plans)), dpi=100, layout="constrained")
    axes = figure.subplots()
    names = [f"{_name(plan)}, {plan.ranks} x {plan.device.name}" for plan in plans]
    parts = list(dict.fromkeys(part for plan in plans for part in plan.memory))
    left = [0.0] * len(plans)
    for part in parts:
        sizes = [plan.memory.get(part, 0.0) / _GIB for plan in plans]
        if any(sizes):
            axes.barh(range(len(plans)), sizes, left=left, label=part)
        left = [start + size for start, size in zip(left, sizes)]
    for row, plan in enumerate(plans):
        axes.plot([plan.device.memory / _GIB] * 2, [row - 0.4, row + 0.4], color="black")
    axes.set_yticks(range(len(plans)), names)
    axes.invert_yaxis()
    axes.set(xlabel="GiB of a rank; black: what its device has")
    figure.legend(loc="outside right upper")
    try:
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
    except OSError as error:
        raise ConfigError(f"--plot {path} cannot be written: {error.strerror}") from None


def _name(plan: Plan) -> str:
    config = plan.run.run_dir.removeprefix("runs/")
    return f"{config}, ZeRO-{plan.zero.stage}, micro-batch {plan.micro_batch}"
