import torch

from coordtok.ops import tf32


def test_scores_are_exact_and_only_convolutions_of_training_are_not() -> None:
    for decide, expected in ((tf32.allow_for_training, True), (tf32.forbid, False)):
        decide()
        assert torch.backends.cudnn.allow_tf32 is expected
        assert torch.get_float32_matmul_precision() == "highest"
    tf32.allow_for_training()
