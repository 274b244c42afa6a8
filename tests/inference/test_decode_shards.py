"""Latent shards back into video files."""

import io
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from coordtok.data.shards import open_shards
from coordtok.errors import CheckpointError, ConfigError, DataError
from coordtok.geometry.pixels import to_uint8
from coordtok.inference.decode_shards import DecodeRequest, decode
from coordtok.inference.encode_shards import Encoding
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.reconstruct import Decoding
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.video.mp4 import write_mp4
from tests.inference.conftest import contents, film, members, write_video
from tests.support.ranks import finish

Decode = Callable[..., int]


@pytest.fixture
def decode_into(tokenizer: CoordTok, export: Path) -> Decode:
    """Function (latents, output, **request) that decodes in this process."""

    def run(latents: Path, output: Path, **request: Any) -> int:
        name = TokenizerId(str(export), fingerprint(export))
        return decode(tokenizer, name, open_shards(str(latents)), output, DecodeRequest(**request))

    return run


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, Fraction]]:
    """Pictures and rate of every file by name, as they were before they became mp4."""
    files = {}

    def note(path: Path, video: np.ndarray, fps: Fraction) -> None:
        files[path.stem] = (video.copy(), fps)
        write_mp4(path, video, fps)

    monkeypatch.setattr("coordtok.inference.decode_shards.write_mp4", note)
    return files


def expected(tokenizer: CoordTok, number: int, start: int) -> np.ndarray:
    """A window of video `number` through the tokenizer."""
    clip = film(number, 5 + 2 * number)[start : start + 8]
    real = len(clip)
    clip = np.concatenate([clip, np.zeros((8 - real, *clip.shape[1:]), np.uint8)])
    with torch.no_grad():
        planes = tokenizer.encode(torch.from_numpy(clip)[None], [real])
    return to_uint8(tokenizer.decode(planes, points_per_pass=24))[0, :real].numpy()


def test_encoded_and_decoded_is_what_the_tokenizer_gives(
    latents: Path, tmp_path: Path, tokenizer: CoordTok, decode_into: Decode, written: dict
) -> None:
    decoding = Decoding(24, batch=4)
    assert decode_into(latents, tmp_path / "out", decoding=decoding) == len(written) == 19
    for name, (video, fps) in written.items():
        number, start = int(name[1]), int(name[-6:])
        assert fps == Fraction(25, 2)
        whole = expected(tokenizer, number, start).astype(int)
        assert video.shape == whole.shape
        assert abs(video - whole).max() <= 1  # float32 sums of another batch
    with av.open(str(tmp_path / "out/v0-f000000.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width, stream.average_rate) == (16, 24, Fraction(25, 2))
        assert len(list(container.decode(stream))) == 5


def test_only_some_frames_of_some_samples(
    latents: Path, tmp_path: Path, decode_into: Decode, written: dict
) -> None:
    decode_into(latents, tmp_path / "all", most=3)
    whole = dict(written)
    written.clear()
    frames = FrameRange(1, 8, 3)
    assert decode_into(latents, tmp_path / "some", most=3, frames=frames) == 3
    assert written.keys() == whole.keys()
    for name, (video, fps) in written.items():
        assert fps == Fraction(25, 6)
        np.testing.assert_array_equal(video, whole[name][0][1::3])
    late = FrameRange(6)
    assert decode_into(latents, tmp_path / "late", most=3, frames=late) == 2  # one has 5 frames


def frames(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(pictures).astype(int)


def test_two_ranks_make_the_files_of_one(
    latents: Path, export: Path, tmp_path: Path, decode_into: Decode
) -> None:
    decode_into(latents, tmp_path / "one", most=5, frames=FrameRange(0, 4))
    told = ["--model", export, "--latents", latents, "--num", "5", "--frames", ":4"]
    printed = finish(
        "decode.py", *told, "--points-per-pass", "1024", "--output", tmp_path / "two", ranks=2
    ).output
    assert printed.count("two: 5 videos") == 1
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) == 6
    assert one["decode.json"] == two["decode.json"]
    for name in one.keys() - {"decode.json"}:
        np.testing.assert_allclose(*(frames(each[name]) for each in (one, two)), atol=3)


def test_what_is_there_is_kept(
    latents: Path, tmp_path: Path, decode_into: Decode, written: dict
) -> None:
    output = tmp_path / "out"
    decode_into(latents, output, most=4)
    before, whole = contents(output), dict(written)
    gone = sorted(output.glob("*.mp4"))[1]
    gone.unlink()
    (output / "v9.mp4.7.part").write_bytes(b"half")
    written.clear()
    assert decode_into(latents, output, most=4) == 4
    assert list(written) == [gone.stem]
    np.testing.assert_array_equal(written[gone.stem][0], whole[gone.stem][0])
    after = contents(output)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {gone.name}


def test_keys_never_become_paths_and_none_is_lost(
    tmp_path: Path, encode_into: Callable, decode_into: Decode
) -> None:
    shards = [members(key, number, 8) for number, key in enumerate(["../../up", "twin", "twin"])]
    video = write_video(tmp_path / "video", shards)
    encode_into(video, tmp_path / "latents", Encoding(workers=0))
    assert decode_into(tmp_path / "latents", tmp_path / "out") == 3
    names = sorted(path.name for path in (tmp_path / "out").glob("*.mp4"))
    assert names[:2] == ["twin-f000000-2.mp4", "twin-f000000.mp4"]
    assert names[2].startswith("up-")
    assert {path.name for path in tmp_path.iterdir()} == {"video", "latents", "out"}


def test_damaged_latents_are_passed_over(
    latents: Path, tmp_path: Path, decode_into: Decode, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(latents, damaged)
    place = open_shards(str(latents)).index.shards[0].samples[1].files["safetensors"][0]
    with open(damaged / "part-000000.tar", "r+b") as file:
        file.seek(place + 20)
        file.write(b"x" * 40)
    assert decode_into(damaged, tmp_path / "out", most=3) == 2
    assert (
        "skipped: v1-f000000: checksum: .safetensors is not what was indexed"
        in capsys.readouterr().out
    )


def test_mistakes_are_one_line(
    video: Path, latents: Path, tmp_path: Path, tokenizer: CoordTok, decode_into: Decode
) -> None:
    with pytest.raises(DataError, match=r"video where latents are wanted; encode it: python"):
        decode_into(video, tmp_path / "out")
    other, source = TokenizerId("models/other", "0" * 64), open_shards(str(latents))
    with pytest.raises(DataError, match=r"encoded by another tokenizer .*models/other"):
        decode(tokenizer, other, source, tmp_path / "out", DecodeRequest())
    with pytest.raises(ConfigError, match=r"frames 8::1 are none of a clip's 8"):
        decode_into(latents, tmp_path / "out", frames=FrameRange(8))
    with pytest.raises(ConfigError, match="num is 0"):
        DecodeRequest(most=0)
    assert not (tmp_path / "out").exists()
    decode_into(latents, tmp_path / "out", most=1)
    with pytest.raises(ConfigError, match="was begun with frames 0::1, not 0:4:1"):
        decode_into(latents, tmp_path / "out", frames=FrameRange(0, 4))


def test_output_that_is_not_finite(
    latents: Path, tmp_path: Path, tokenizer: CoordTok, decode_into: Decode, monkeypatch
) -> None:
    nan = torch.full((1, 5, 16, 24, 3), float("nan"))
    monkeypatch.setattr(tokenizer, "decode", lambda *_, **__: nan)
    with pytest.raises(CheckpointError, match=r"output for v0-f000000 .* not finite"):
        decode_into(latents, tmp_path / "out")
