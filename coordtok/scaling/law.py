"""How held-out loss falls with parameters N and clips seen D:  L = E + A / N^a + B / D^b.

Fitted by variable projection: for given exponents the law is linear in E, A and B, which must not
be negative, so that only two numbers are searched for (Hoffmann et al. 2022, arXiv 2203.15556, give
the form and its use). Errors are relative. Intervals come from refits on runs drawn with
replacement. The parabolas of equal compute stand beside it as a check; they are biased even on
clean data, because a parabola is not the law's shape along a budget.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from coordtok.errors import DataError

LEAST_RUNS = 6
"""Points below which five numbers cannot be told from them."""
LEAST_VALUES = 3
"""Different sizes, and different numbers of clips, that a law needs."""
_EXPONENTS = (0.02, 3.0)
_GRID, _FINE_GRID = 24, 7
"""Exponents of each kind that are tried at once, at first and ever closer around the best."""
_TURNS = 9
_DRAWS = 100
INTERVAL = (0.05, 0.95)
SAME_BUDGET = 0.8
"""Of a run's compute, down to which another is of the same budget."""
_NOTHING = 1e-3
"""Of a loss: changes below that are none."""


class Point(NamedTuple):
    """One finished run."""

    name: str
    parameters: float
    clips: float
    """Seen in training, repetitions counted."""
    flops: float
    loss: float
    epochs: float = math.nan
    """How often it saw each sample of its shards; nan where their index is not on this machine."""


@dataclass(frozen=True)
class Law:
    """L = E + A / N^a + B / D^b."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def loss(self, parameters: float, clips: float) -> float:
        return float(self.E + self.A * parameters**-self.a + self.B * clips**-self.b)

    def best_parameters(self, flops: float, per_parameter: float) -> float:
        """The size with the least loss for a budget, where a run of N parameters on D clips costs
        `per_parameter` * N * D."""
        ratio = self.a * self.A / (self.b * self.B)
        exponent = 1 / (self.a + self.b)
        return float(ratio**exponent * (flops / per_parameter) ** (self.b * exponent))


@dataclass(frozen=True)
class Fit:
    """A law with what its runs leave open."""

    law: Law
    draws: tuple[Law, ...]
    """Refits on runs drawn with replacement."""
    error: float
    """Root mean square of the relative errors of its own runs."""
    per_parameter: float
    """FLOPs for each parameter and clip, the median of its runs."""

    def interval(self, of: Callable[[Law], float]) -> tuple[float, float]:
        """The middle 90 % of a figure over the refits."""
        values = np.array([of(law) for law in self.draws])
        low, high = np.quantile(values[np.isfinite(values)], INTERVAL)
        return float(low), float(high)

    def depends_on(self, points: Sequence[Point]) -> tuple[bool, bool]:
        """Whether size, and whether clips, change the loss of these runs by more than they
        scatter."""
        least = max(2 * self.error, _NOTHING) * min(each.loss for each in points)
        law, sizes, clips = self.law, _sizes(points), _lengths(points)
        by_size = law.A * (min(sizes) ** -law.a - max(sizes) ** -law.a)
        by_clips = law.B * (min(clips) ** -law.b - max(clips) ** -law.b)
        return by_size > least, by_clips > least

    def prediction(self, parameters: float, clips: float) -> tuple[float, float]:
        """Where the loss of one new run should lie: the refits' spread, and what runs scatter."""
        low, high = self.interval(lambda law: law.loss(parameters, clips))
        return low * (1 - 2 * self.error), high * (1 + 2 * self.error)


def fit_law(points: Sequence[Point], seed: int = 0, draws: int = _DRAWS) -> Fit:
    """
    Raises:
        DataError: too few runs, sizes or lengths to carry a law.
    """
    check(points)
    law = _fit(points)
    rng = np.random.default_rng(seed)
    refits: list[Law] = []
    while len(refits) < draws:
        drawn = [points[each] for each in rng.integers(len(points), size=len(points))]
        if _carries(drawn):
            refits.append(_fit(drawn, around=law))
    errors = [law.loss(each.parameters, each.clips) / each.loss - 1 for each in points]
    free = max(1, len(points) - 5)
    error = math.sqrt(sum(each**2 for each in errors) / free)
    cost = float(np.median([each.flops / (each.parameters * each.clips) for each in points]))
    return Fit(law, tuple(refits), error, cost)


def check(points: Sequence[Point]) -> None:
    """Raise DataError where the runs cannot carry a law."""
    wrong = [each.name for each in points if not 0 < each.loss < math.inf]
    if wrong:
        raise DataError(f"runs {', '.join(wrong)} diverged: their losses are not finite numbers")
    if not _carries(points):
        sizes, lengths = (len(set(values)) for values in (_sizes(points), _lengths(points)))
        raise DataError(
            f"{len(points)} runs of {sizes} sizes and {lengths} lengths cannot carry a law of five "
            f"numbers; it takes {LEAST_RUNS} runs, {LEAST_VALUES} sizes and {LEAST_VALUES} lengths"
        )


def largest_budget(points: Sequence[Point]) -> list[Point]:
    """The runs of the most compute, equal but for rounding to steps, largest model first."""
    most = max(each.flops for each in points)
    runs = [each for each in points if each.flops > SAME_BUDGET * most]
    return sorted(runs, key=lambda each: -each.parameters)


def left_out(
    points: Sequence[Point], held_back: Sequence[Point], seed: int = 0
) -> list[tuple[float, float]]:
    """Where a law of the other runs says that the losses of those held back lie.

    Raises:
        DataError: the others cannot carry a law.
    """
    fit = fit_law([each for each in points if each not in held_back], seed)
    return [fit.prediction(each.parameters, each.clips) for each in held_back]


def parabola_minimum(points: Sequence[Point]) -> float | None:
    """The best size among runs of equal compute, by a parabola through loss over log size; None
    where it has no minimum between them."""
    if len(set(_sizes(points))) < LEAST_VALUES:
        return None
    sizes = np.log([each.parameters for each in points])
    curve, slope, _ = np.polyfit(sizes, [each.loss for each in points], 2)
    if curve <= 0 or not sizes.min() <= -slope / (2 * curve) <= sizes.max():
        return None
    return float(np.exp(-slope / (2 * curve)))


def _sizes(points: Sequence[Point]) -> list[float]:
    return [each.parameters for each in points]


def _lengths(points: Sequence[Point]) -> list[float]:
    return [each.clips for each in points]


def _carries(points: Sequence[Point]) -> bool:
    enough = len(points) >= LEAST_RUNS
    return enough and all(
        len(set(values)) >= LEAST_VALUES for values in (_sizes(points), _lengths(points))
    )


def _fit(points: Sequence[Point], around: Law | None = None) -> Law:
    """The law of the least relative squared error. around: search near its exponents alone."""
    sizes, clips, losses = (
        np.array([getattr(each, name) for each in points])
        for name in ("parameters", "clips", "loss")
    )
    # Scaled to about 1, or powers of a million would leave nothing to the least squares.
    unit = np.exp(np.log(sizes).mean()), np.exp(np.log(clips).mean())
    sizes, clips = sizes / unit[0], clips / unit[1]
    spans = [(math.log(_EXPONENTS[0]), math.log(_EXPONENTS[1]))] * 2
    if around is not None:
        spans = [(math.log(each) - 1.0, math.log(each) + 1.0) for each in (around.a, around.b)]
    best = (math.inf, np.zeros(2), np.zeros(3))
    for turn in range(_TURNS):
        count = _GRID if around is None and turn == 0 else _FINE_GRID
        grids = np.meshgrid(*(np.linspace(*span, count) for span in spans))
        exponents_G2 = np.stack([grid.ravel() for grid in grids], axis=1)
        error, exponents, weights = _best_of(np.exp(exponents_G2), sizes, clips, losses)
        if error < best[0]:
            best = (error, np.log(exponents), weights)
        spans = [
            (middle - (high - low) / 6, middle + (high - low) / 6)
            for (low, high), middle in zip(spans, best[1])
        ]
    (a, b), (E, A, B) = np.exp(best[1]).tolist(), best[2].tolist()
    return Law(E, A * float(unit[0] ** a), a, B * float(unit[1] ** b), b)


def _best_of(
    exponents_G2: np.ndarray, sizes_P: np.ndarray, clips_P: np.ndarray, losses_P: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Of G pairs of exponents the best one on P runs: its error, itself, and E, A and B >= 0.

    Least squares of (E, A N^-a, B D^-b) / L = 1, without each set of columns that would get a
    negative weight: there are seven sets.
    """
    a_G1, b_G1 = exponents_G2[:, :1], exponents_G2[:, 1:]
    columns_GP3 = np.stack(
        [np.ones((len(a_G1), len(sizes_P))), sizes_P**-a_G1, clips_P**-b_G1], axis=2
    )
    columns_GP3 /= losses_P[:, None]
    gram_G33 = columns_GP3.transpose(0, 2, 1) @ columns_GP3
    right_G3 = columns_GP3.sum(axis=1)
    best = (math.inf, exponents_G2[0], np.zeros(3))
    for chosen in (each for count in (3, 2, 1) for each in combinations(range(3), count)):
        part = gram_G33[:, chosen][:, :, chosen]
        ridge = 1e-14 * np.trace(part, axis1=1, axis2=2)[:, None, None] * np.eye(len(chosen))
        weights_GC = np.linalg.solve(part + ridge, right_G3[:, chosen, None])[..., 0]
        rest_GP = (columns_GP3[:, :, chosen] @ weights_GC[..., None])[..., 0] - 1
        errors_G = np.where((weights_GC < 0).any(axis=1), math.inf, (rest_GP**2).sum(axis=1))
        place = int(errors_G.argmin())
        if errors_G[place] < best[0]:
            weights = np.zeros(3)
            weights[list(chosen)] = weights_GC[place]
            best = (float(errors_G[place]), exponents_G2[place], weights)
    return best
