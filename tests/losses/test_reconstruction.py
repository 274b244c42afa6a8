import torch

from coordtok.losses.reconstruction import mse_per_clip


def test_each_clip_has_its_own_mean_in_float32() -> None:
    pred = torch.zeros(2, 4, 1, 2, 2, 3, dtype=torch.bfloat16)
    target = torch.zeros(2, 4, 1, 2, 2, 3)
    target[1, 0] = 0.5
    loss = mse_per_clip(pred, target)
    assert loss.dtype == torch.float32
    assert loss.tolist() == [0.0, 0.25 / 4]
