import numpy as np
import pytest
import torch

from coordtok.config.sampling import FlowConfig
from coordtok.diffusion.flow import draw_time, flow_loss, interpolate, velocity_target


def test_the_path_runs_straight_from_noise_to_data() -> None:
    data, noise = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    for time, expected in ((0.0, noise), (1.0, data), (0.25, 0.25 * data + 0.75 * noise)):
        torch.testing.assert_close(interpolate(data, noise, torch.full((3,), time)), expected)
    mixed = interpolate(data, noise, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(mixed[0], noise[0])
    assert torch.equal(mixed[2], data[2])
    ahead = interpolate(data, noise, torch.full((3,), 0.3))
    target = velocity_target(data, noise)
    torch.testing.assert_close(ahead + 0.7 * target, data)


def test_times_are_of_the_distribution_asked_for() -> None:
    rng = np.random.default_rng(0)
    uniform = np.array([draw_time(rng, FlowConfig()) for _ in range(4000)])
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(uniform.var() - 1 / 12) < 0.005
    normal = FlowConfig("logit_normal", logit_mean=1.0, logit_std=0.5)
    times = np.array([draw_time(rng, normal) for _ in range(4000)])
    logits = np.log(times / (1 - times))
    assert abs(logits.mean() - 1.0) < 0.03
    assert abs(logits.std() - 0.5) < 0.03


@pytest.mark.parametrize("mean", [-1e6, 1e6])
def test_absurd_logits_stay_times(mean: float) -> None:
    flow = FlowConfig("logit_normal", logit_mean=mean)
    assert 0 <= draw_time(np.random.default_rng(0), flow) <= 1


def test_the_loss_is_a_mean_for_each_clip() -> None:
    predicted = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.bfloat16)
    loss = flow_loss(predicted, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert loss.dtype == torch.float32
    assert loss.tolist() == [2.0, 0.0]
