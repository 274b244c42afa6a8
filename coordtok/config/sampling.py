"""Of a generator: the times that it is trained at, and how samples are drawn from it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from coordtok.config.ranges import Range, Section, require


@dataclass(frozen=True)
class FlowConfig(Section, at="flow"):
    """Flow matching: how the times t of a generator's training are drawn, from noise to data."""

    time: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of t: uniform in [0, 1], or the sigmoid of a normal variable."""
    logit_mean: Annotated[float, Range()] = 0.0
    """Mean of that normal variable."""
    logit_std: Annotated[float, Range(above=0)] = 1.0
    """Standard deviation of that normal variable."""


@dataclass(frozen=True)
class SamplerConfig(Section, at="sampler"):
    """From noise to data with a generator. Defaults are the paper's (docs/method.md, "Generator").

    They serve the pictures of training and are the defaults of scripts/sample.py.
    """

    name: Literal["euler", "heun", "dopri5", "euler_maruyama"] = "euler_maruyama"
    """The integrator: three of the ODE, and Euler-Maruyama of the SDE with w_t = sigma_t."""
    steps: Annotated[int, Range(1, 10_000)] = 250
    """Steps in t, for all but dopri5."""
    last_step: Annotated[float, Range(above=0, below=1)] = 0.04
    """Length in t of the last, noiseless step of euler_maruyama."""
    guidance: Annotated[float, Range(0)] = 1.0
    """Scale of classifier-free guidance; 1 is none."""
    guidance_interval: Annotated[tuple[float, float], Range(0, 1)] = (0.0, 1.0)
    """Times t between which guidance applies."""
    tolerance: Annotated[float, Range(above=0, below=1)] = 1e-5
    """Relative and absolute error tolerance of dopri5."""

    def check(self) -> None:
        require(
            self.name != "euler_maruyama" or self.steps > 1,
            f"sampler.steps is {self.steps}; euler_maruyama takes at least 2: one with noise and "
            "the last without",
        )
        low, high = self.guidance_interval
        require(
            low < high,
            f"sampler.guidance_interval is {low}, {high}; it must be an interval within [0, 1]",
        )
