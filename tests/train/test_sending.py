"""From the host to a device; the meta device stands for a GPU."""

import pytest
import torch

from coordtok import distributed
from coordtok.data.loader import Batch
from coordtok.train.tasks.sending import send, send_batch


def test_clips_go_to_the_device_and_what_the_host_reads_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = Batch({"video": torch.zeros(2, 3, 4), "num_frames": torch.ones(2)}, (), ())
    assert send_batch(batch).data["video"] is batch.data["video"]
    monkeypatch.setattr(distributed, "device", lambda: torch.device("meta"))
    sent = send_batch(batch).data
    assert sent["video"].is_meta
    assert sent["num_frames"] is batch.data["num_frames"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_is_computed_next_sees_what_was_sent() -> None:
    device, busy = torch.device("cuda", 0), torch.randn(4096, 4096, device="cuda")
    for number in range(5):
        for _ in range(20):
            busy = (busy @ busy).tanh()
        sent = send(torch.full((2**22,), float(number)), device)
        assert float(sent.sum()) == number * 2**22
