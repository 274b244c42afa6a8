"""From noise (t = 0) to data (t = 1) along a velocity field.

Every draw is passed in and times are counted on the host, so the result is a function of noise,
field and settings alone. With a fixed number of steps each row of a batch goes its own way; dopri5
shares its step lengths among them.

Shapes: B batch, M all numbers of a latent (`geometry.planes.pack`).
"""

import math
from collections.abc import Callable

import torch

from coordtok.config.sampling import SamplerConfig
from coordtok.errors import ConfigError

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_BM, time_B) to v_BM."""
StepNoise = Callable[[int], torch.Tensor]
"""The normal numbers (B, M) of a step, counted from 0."""
VelocityAt = Callable[[torch.Tensor, float], torch.Tensor]

MOST_ADAPTIVE_STEPS = 1000
"""Of dopri5, seven evaluations each: a tolerance that wants more asks for what the precision of the
field cannot give."""


@torch.no_grad()
def sample(
    velocity: Velocity, noise_BM: torch.Tensor, settings: SamplerConfig, step_noise: StepNoise
) -> torch.Tensor:
    """Data (B, M) from standard normal `noise_BM`, in its precision.

    `step_noise` is asked only by euler_maruyama, once for each step but the last. The velocity is
    evaluated `evaluations(settings)` times.

    Raises:
        ConfigError: settings that the sampler cannot work with.
    """

    def at(x_BM: torch.Tensor, time: float) -> torch.Tensor:
        return velocity(x_BM, x_BM.new_full((len(x_BM),), time)).to(x_BM.dtype)

    if settings.name == "euler":
        return _euler(at, noise_BM, settings.steps)
    if settings.name == "heun":
        return _heun(at, noise_BM, settings.steps)
    if settings.name == "dopri5":
        return _dopri5(at, noise_BM, settings.tolerance)
    return _euler_maruyama(at, noise_BM, settings, step_noise)


def evaluations(settings: SamplerConfig) -> int | None:
    """How often the velocity is evaluated; None where the sampler finds out on its way."""
    known = times(settings)
    return None if known is None else len(known)


def times(settings: SamplerConfig) -> list[float] | None:
    """The time of each evaluation; None where the sampler finds them on its way."""
    steps = settings.steps
    if settings.name == "dopri5":
        return None
    if settings.name == "euler":
        return [step / steps for step in range(steps)]
    if settings.name == "heun":
        return [(step + later) / steps for step in range(steps) for later in (0, 1)]
    end = 1 - settings.last_step
    return [*(step * (end / (steps - 1)) for step in range(steps - 1)), end]


def _euler(velocity: VelocityAt, x_BM: torch.Tensor, steps: int) -> torch.Tensor:
    for step in range(steps):
        x_BM = x_BM + velocity(x_BM, step / steps) / steps
    return x_BM


def _heun(velocity: VelocityAt, x_BM: torch.Tensor, steps: int) -> torch.Tensor:
    for step in range(steps):
        start_BM = velocity(x_BM, step / steps)
        end_BM = velocity(x_BM + start_BM / steps, (step + 1) / steps)
        x_BM = x_BM + (start_BM + end_BM) / (2 * steps)
    return x_BM


def _dopri5(velocity: VelocityAt, x_BM: torch.Tensor, tolerance: float) -> torch.Tensor:
    try:
        from torchdiffeq import odeint  # on demand: no other sampler needs it
    except ImportError:
        raise ConfigError(
            "sampler.name is dopri5, which needs the package torchdiffeq: pip install "
            "torchdiffeq, or choose heun"
        ) from None
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=x_BM.device)
    try:
        path = odeint(
            lambda time, x: velocity(x, float(time)),
            x_BM,
            ends,
            rtol=tolerance,
            atol=tolerance,
            method="dopri5",
            options={"norm": _worst_row, "max_num_steps": MOST_ADAPTIVE_STEPS},
        )
    except AssertionError as error:  # its steps became too many, or nothing
        raise ConfigError(
            f"sampler.tolerance is {tolerance}, which dopri5 cannot keep here ({error}); raise it"
        ) from None
    return path[-1]


def _worst_row(error_BM: torch.Tensor) -> torch.Tensor:
    """The largest error of a row: each keeps the tolerance, whatever else is in the batch."""
    return error_BM.square().mean(dim=-1).sqrt().max()


def _euler_maruyama(
    velocity: VelocityAt, x_BM: torch.Tensor, settings: SamplerConfig, step_noise: StepNoise
) -> torch.Tensor:
    """dx = (v + w s) dt + sqrt(2 w) dW with w = 1 - t, the share of noise at t (SiT: diffusion form
    "sigma"); the last step has no noise ("mean").

    On the linear path the score s is (t v - x) / (1 - t), hence v + w s = (1 + t) v - x, which is
    finite to the end. As in the release, `steps` counts the last one in.
    """
    end = 1 - settings.last_step
    length = end / (settings.steps - 1)
    for step in range(settings.steps - 1):
        time = step * length
        drift_BM = (1 + time) * velocity(x_BM, time) - x_BM
        spread = math.sqrt(2 * (1 - time) * length)
        x_BM = x_BM + length * drift_BM + spread * step_noise(step)
    return x_BM + settings.last_step * ((1 + end) * velocity(x_BM, end) - x_BM)
