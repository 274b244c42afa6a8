import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from coordtok.data.index import SampleEntry, ShardEntry, ShardIndex, VideoSpec
from coordtok.data.latents import LatentReader, LatentSpec
from coordtok.data.loader import TrainLoader
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import open_shards
from coordtok.data.tars import read_members
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import DataError
from coordtok.geometry.latent import LatentShape
from coordtok.pretrained.card import TokenizerId
from coordtok.storage.checksums import sha256_of_file
from tests.support.shards import write_tars

CHANNELS = 2
SPEC = LatentSpec(
    video=VideoSpec(frames=8, height=16, width=24, fps=None),
    dtype="bfloat16",
    latent=LatentShape.triplane((4, 3, 5), CHANNELS),
    tokenizer=TokenizerId("exports/one", "a" * 64),
    mean={"xy": (0.0, 1.0), "yt": (0.5, -1.0), "xt": (0.0, 0.0)},
    std={"xy": (1.0, 2.0), "yt": (1.0, 1.0), "xt": (3.0, 1.0)},
)
READ = LatentReader(SPEC)


def planes(number: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(number)
    return {
        name: torch.randn(shape, generator=rng).to(dtype)
        for name, shape in SPEC.latent.shapes.items()
    }


def sample(frames: int = 8, **files: bytes) -> StoredSample:
    def read_into(ext, offset, buffer):
        buffer[:] = files[ext][offset : offset + buffer.nbytes]

    places = {ext: (512, len(content)) for ext, content in files.items()}
    return StoredSample(SampleEntry("key", frames, places), read_into)


def write_latents(
    folder: Path, sizes: Sequence[int], lanes: int, damaged: Collection[str] = ()
) -> Path:
    """Shards with `sizes` samples; the planes of sample n of shard s are `planes(100 s + n)`."""
    shards: list[list[tuple[str, bytes]]] = []
    for shard, size in enumerate(sizes):
        shards.append([])
        for number in range(size):
            key = f"s{shard}-{number}"
            content = save(planes(100 * shard + number, torch.bfloat16))
            shards[-1] += [
                (f"{key}.safetensors", bytes(len(content)) if key in damaged else content),
                (f"{key}.json", json.dumps({"class": shard}).encode()),
            ]
    return write_tars(folder, shards, SPEC.video, lanes=lanes, codec=SPEC.codec(), entry=entry)


def entry(path: Path) -> ShardEntry:
    files: dict[str, dict[str, tuple[int, int]]] = {}
    for member in read_members(path):
        key, ext = member.key_and_extension
        files.setdefault(key, {})[ext] = (member.offset, member.size)
    samples = tuple(SampleEntry(key, 8, own) for key, own in files.items())
    return ShardEntry(path.name, path.stat().st_size, sha256_of_file(path), samples)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_planes_come_back_bit_for_bit_as_float32(dtype: torch.dtype) -> None:
    stored = planes(3, dtype)
    read = READ(sample(5, safetensors=save(stored), json=b'{"class": 7}'))
    assert read["num_frames"] == 5
    assert read["label"] == 7
    for name, plane in stored.items():
        assert read[name].dtype == np.float32
        assert torch.equal(torch.from_numpy(read[name]), plane.float())


def test_a_blank_has_the_form_of_a_sample() -> None:
    read, blank = READ(sample(safetensors=save(planes()))), READ.blank()
    assert blank.keys() == read.keys()
    for name in SPEC.latent.shapes:
        assert blank[name].shape == read[name].shape
        assert blank[name].dtype == read[name].dtype
    assert blank["label"] == read["label"] == -1


def changed(**tensors: torch.Tensor | None) -> bytes:
    merged = {**planes(), **tensors}
    return save({name: tensor for name, tensor in merged.items() if tensor is not None})


NAN = planes()["yt"].index_fill(0, torch.tensor(1), float("nan"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "planes are damaged"),
        (b"\xff" * 100, "planes are damaged"),
        (save(planes())[:-1], "planes are damaged"),
        (changed(xt=None), "the tensors xy, yt, not its planes"),
        (changed(more=torch.zeros(1)), "the tensors more, xt, xy, yt"),
        (changed(xy=torch.zeros(3, 5, 3)), r"plane xy has shape \(3, 5, 3\), not \(3, 5, 2\)"),
        (changed(xy=torch.zeros(5, 3, 2)), r"plane xy has shape \(5, 3, 2\)"),
        (changed(xy=torch.zeros(3, 5, 2, dtype=torch.float16)), "plane xy is F16"),
        (changed(xy=torch.zeros(3, 5, 2, dtype=torch.int32)), "plane xy is I32"),
        (changed(yt=NAN), "plane yt holds values that are not finite"),
        (changed(yt=NAN.bfloat16()), "plane yt holds values that are not finite"),
        (changed(xt=planes()["xt"] / 0), "plane xt holds values that are not finite"),
    ],
)
def test_what_cannot_be_used_is_unreadable(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableSample, match=reason):
        READ(sample(safetensors=content))


@pytest.mark.parametrize(("classes", "fits"), [(None, True), (8, True), (7, False)])
def test_a_class_that_the_model_lacks_is_an_error(classes: int | None, fits: bool) -> None:
    stored = sample(safetensors=save(planes()), json=b'{"class": 7}')
    read = LatentReader(SPEC, classes)
    if fits:
        assert read(stored)["label"] == 7
        return
    with pytest.raises(DataError, match=r"key is of class 7, but model\.classes is 7"):
        read(stored)


def test_samples_without_planes_or_of_impossible_frames() -> None:
    with pytest.raises(UnreadableSample, match=r"no planes, only \.json \.mp4"):
        READ(sample(mp4=b"", json=b"{}"))
    for frames in (0, 9):
        with pytest.raises(UnreadableSample, match=f"of {frames} frames, not of 1 to 8"):
            READ(sample(frames, safetensors=save(planes())))
    with pytest.raises(UnreadableSample, match="json is damaged"):
        READ(sample(safetensors=save(planes()), json=b"[]"))


def test_the_spec_comes_back_from_an_index_and_is_in_its_fingerprint() -> None:
    index = ShardIndex(SPEC.video, SPEC.codec(), 1, (ShardEntry("a.tar", 0, "0" * 64, ()),))
    again = ShardIndex.from_json(index.to_json(), "index.json")
    assert LatentSpec.of(again, "here") == SPEC
    other = dataclasses.replace(SPEC, std={**SPEC.std, "xy": (1.0, 2.1)})
    assert dataclasses.replace(index, codec=other.codec()).fingerprint != index.fingerprint


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": None}, "object"),
        ({"std": {"xy": [1, 1], "yt": [1, 1]}}, "no 'xt'"),
        ({"std": {"xy": [1, 1], "yt": [1, 1], "xt": [1, 0]}}, r"std\.xt is not above 0"),
        ({"mean": {"xy": [1, 1], "yt": [1], "xt": [1, 0]}}, r"mean\.yt is not 2 finite"),
        ({"mean": {"xy": [1, 1], "yt": [1, float("nan")], "xt": [1, 0]}}, r"mean\.yt is not"),
        ({"dtype": "float16"}, "dtype 'float16' is none of bfloat16, float32"),
        ({"plane_size": [4, 3]}, "unpack"),
        ({"plane_size": [4, 3, 0]}, "0 is no size"),
        ({"channels": "2"}, "'2' is no size"),
        ({"channels": 10**9}, r"its planes have \d+ bytes, more than"),
        ({"planes": []}, "give at least one"),
        ({"planes": [{"name": "xy"}]}, "no 'axes'"),
        ({"tokenizer": {"path": "x"}}, "no 'fingerprint'"),
    ],
)
def test_a_wrong_description_is_one_line(changes: dict, reason: str) -> None:
    index = ShardIndex(SPEC.video, {**SPEC.codec(), **changes}, 1, ())
    with pytest.raises(DataError, match=f"latents in here are described wrongly.*{reason}") as e:
        LatentSpec.of(index, "here")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["mean", "std", "plane_size", "tokenizer"])
def test_a_missing_part_of_the_description_is_named(name: str) -> None:
    codec = {key: value for key, value in SPEC.codec().items() if key != name}
    with pytest.raises(DataError, match=f"no '{name}'"):
        LatentSpec.of(ShardIndex(SPEC.video, codec, 1, ()), "here")


def test_video_and_latents_are_not_mistaken_for_each_other(
    write_shards: Callable[..., Path], tmp_path: Path
) -> None:
    video = open_shards(str(write_shards(tmp_path / "video", (1,), 1)))
    latents = open_shards(str(write_latents(tmp_path / "latents", (1,), 1)))
    with pytest.raises(DataError, match=r"video holds video where latents are wanted.*encode\.py"):
        READ.check(video.index, video.location)
    with pytest.raises(DataError, match="latents holds latents where video is wanted"):
        VideoWindows(8, 16, 24).check(latents.index, latents.location)


def test_latents_of_another_tokenizer_or_shape_are_refused(tmp_path: Path) -> None:
    found = open_shards(str(write_latents(tmp_path / "latents", (1,), 1)))
    READ.check(found.index, found.location)
    other = TokenizerId("exports/two", "b" * 64)
    with pytest.raises(DataError, match=r"another tokenizer.*exports/one.*exports/two"):
        LatentReader(dataclasses.replace(SPEC, tokenizer=other)).check(found.index, "here")
    wide = dataclasses.replace(SPEC, latent=LatentShape.triplane((4, 3, 6), CHANNELS))
    with pytest.raises(DataError, match=r"plane xy of 3 x 5 .*, not of 3 x 6"):
        LatentReader(wide).check(found.index, "here")


def loader(folder: Path, state: LoaderState | None = None, workers: int = 0) -> TrainLoader:
    return TrainLoader(
        [open_shards(str(folder))],
        READ,
        seed=1,
        rank=0,
        world_size=1,
        micro_batch=2,
        workers=workers,
        prefetch=2,
        shuffle_block=4,
        state=state,
    )


def test_the_loader_gives_each_sample_its_planes_and_resumes(tmp_path: Path) -> None:
    """Lanes, order, skipping and position are those of video: the same code reads both."""
    folder = write_latents(tmp_path / "latents", (3, 2, 3, 3), 2, damaged=["s0-1"])
    whole, skipped = [], set()
    for (batch, state), _ in zip(loader(folder), range(12)):
        whole.append((batch, state))
        skipped |= {each.key for each in batch.skipped}
        for place, sample_id in enumerate(batch.ids):
            shard, number = map(int, sample_id.key[1:].split("-"))
            assert batch.data["label"][place] == shard
            for name, plane in planes(100 * shard + number, torch.bfloat16).items():
                assert torch.equal(batch.data[name][place], plane.float())
    assert skipped == {"s0-1"}
    for (batch, state), (expected, then) in zip(loader(folder, whole[4][1], 1), whole[5:]):
        assert batch.ids == expected.ids
        assert state == then
        assert torch.equal(batch.data["yt"], expected.data["yt"])
