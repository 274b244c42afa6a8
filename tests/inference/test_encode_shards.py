"""Latent shards: what they hold, on any number of ranks, and after being killed."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import WindowChoice, one_per_sample
from coordtok.data.index import INDEX_NAME, ShardIndex
from coordtok.data.latents import LatentReader, LatentSpec
from coordtok.data.loader import TrainLoader
from coordtok.data.shards import open_shards
from coordtok.errors import CheckpointError, ConfigError, DataError
from coordtok.inference import latent_shard
from coordtok.inference.encode_shards import Encoding, Summary
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import read_card
from coordtok.pretrained.write import write_export
from coordtok.video.codec import encode_raw
from data_prep.verify_shards import Report, verify
from tests.inference.conftest import contents, film, members, write_video
from tests.support.ranks import finish

EncodeInto = Callable[[Path | str, Path, Encoding], tuple[Summary, int]]
HOW = Encoding(dtype="float32", batch=2, workers=0)
CLIPS = [1, 1, 2, 2, 2, 2, 3, 3, 3]
"""Windows of 8 frames in the videos of 5, 7 ... 21 frames."""


def tensors(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every sample's stored planes by key, read without the project."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, ext = member.name.partition(".")
                if ext == "safetensors":
                    found[key] = load(tar.extractfile(member).read())
    return found


def spec(folder: Path) -> LatentSpec:
    return LatentSpec.of(open_shards(str(folder)).index, str(folder))


def test_each_window_holds_its_own_planes(latents: Path, tokenizer: CoordTok) -> None:
    found = tensors(latents)
    assert len(found) == sum(CLIPS)
    for number, windows in enumerate(CLIPS):
        frames = 5 + 2 * number
        keys = sorted(key for key in found if key.startswith(f"v{number}-"))
        assert len(keys) == windows
        for key in keys:
            start = int(key.rpartition("-f")[2])
            clip = film(number, frames)[start : start + 8]
            real, padding = len(clip), 8 - len(clip)
            assert real == min(frames, 8)
            clip = np.concatenate([clip, np.full((padding, *clip.shape[1:]), 77, np.uint8)])
            with torch.no_grad():
                planes = tokenizer.encode(torch.from_numpy(clip)[None], [real])
            for name, plane in planes._asdict().items():
                torch.testing.assert_close(found[key][name], plane[0], rtol=1e-5, atol=1e-5)


def test_beside_the_planes_lies_where_they_are_from(latents: Path) -> None:
    with tarfile.open(latents / "part-000003.tar") as tar:
        names = tar.getnames()
        assert names[4:6] == ["v6-f000009.safetensors", "v6-f000009.json"]
        assert json.load(tar.extractfile("v6-f000009.json")) == {
            "source": "v6.avi",
            "start_frame": 109,
            "frames": 8,
            "fps": 12.5,
            "class": 0,
            "class_name": None,
            "split": None,
        }
    index = open_shards(str(latents)).index
    assert index.lanes == 2
    assert [shard.name for shard in index.shards] == [f"part-{n:06d}.tar" for n in range(4)]
    assert index.shards[0].samples[0].frames == 5
    report = Report()
    verify(latents, "all", report)
    assert report.problems == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_normalised_latents_have_mean_0_and_std_1(
    dtype: str, video: Path, tmp_path: Path, encode_into: EncodeInto
) -> None:
    encode_into(video, tmp_path / "out", Encoding(WindowChoice(2), dtype, 3, 0))  # type: ignore[arg-type]
    found, told = tensors(tmp_path / "out"), spec(tmp_path / "out")
    for name in ("xy", "yt", "xt"):
        stored = torch.cat([planes[name].reshape(-1, 4) for planes in found.values()])
        assert stored.dtype == getattr(torch, dtype)
        mean, std = (
            torch.tensor(each[name], dtype=torch.float64) for each in (told.mean, told.std)
        )
        values = (stored.double() - mean) / std
        assert values.mean(dim=0).abs().max() < 1e-9
        assert (values.std(dim=0, correction=0) - 1).abs().max() < 1e-9


def test_bfloat16_is_float32_rounded(
    latents: Path, video: Path, tmp_path: Path, encode_into: EncodeInto
) -> None:
    encode_into(video, tmp_path / "out", Encoding(batch=2, workers=0))
    exact, rounded = tensors(latents), tensors(tmp_path / "out")
    for key, planes in exact.items():
        for name, plane in planes.items():
            assert torch.equal(plane.bfloat16(), rounded[key][name])


def test_video_may_come_as_a_stream(
    video: Path, latents: Path, tmp_path: Path, encode_into: EncodeInto
) -> None:
    encode_into(f"pipe:cat {video}/{{name}}", tmp_path / "out", HOW)
    assert contents(tmp_path / "out") == contents(latents)


def test_damage_is_found_by_verify_shards(
    latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(latents, damaged)
    offset, size = open_shards(str(latents)).index.shards[2].samples[1].files["safetensors"]
    with open(damaged / "part-000002.tar", "r+b") as file:
        file.seek(offset + size - 4)
        file.write(b"\xff" * 4)
    report = Report()
    verify(damaged, "all", report)
    assert report.problems == 3
    assert "plane yt holds values that are not finite" in capsys.readouterr().out


def test_loaders_read_them(latents: Path) -> None:
    source, found = open_shards(str(latents)), tensors(latents)
    read = LatentReader(LatentSpec.of(source.index, source.location))
    seen = set()
    for batch in ClipReader(source, one_per_sample(source.index, read.frames, 0), read, batch=2):
        for place in batch.numbers:
            seen.add(key := batch.ids[place].key)
            for name in ("xy", "yt", "xt"):
                assert torch.equal(batch.data[name][place], found[key][name])
    assert seen == set(found)
    train = TrainLoader(
        [source], read, seed=0, rank=0, world_size=1, micro_batch=2, workers=1, prefetch=2,
        shuffle_block=4,
    )  # fmt: skip
    batch, _ = next(iter(train))
    assert torch.equal(batch.data["xt"][1], found[batch.ids[1].key]["xt"])
    assert batch.data["label"][1] == int(batch.ids[1].key[1]) % 3


def test_two_ranks_give_the_same_bytes_as_one(
    video: Path, export: Path, tmp_path: Path, encode_into: EncodeInto
) -> None:
    how = Encoding(WindowChoice(2, seed=5), "bfloat16", 2, workers=0)
    summary, _ = encode_into(video, tmp_path / "one", how)
    told = ["--model", export, "--shards", video, "--output", tmp_path / "two"]
    told += ["--windows", "2", "--batch", "2", "--seed", "5", "--workers", "2"]
    printed = finish("encode.py", *told, ranks=2).output
    assert printed.count(f"two: {summary.clips} latents in 4 shards, 2 lanes") == 1
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert encode_into(video, tmp_path / "two", how) == (summary, 0)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def die_at(call: int, name: str) -> None:
    """Have this process killed at its n-th call of a function of `inference.latent_shard`."""
    true, calls = getattr(latent_shard, name), count(1)

    def dying(*args: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return true(*args)

    setattr(latent_shard, name, dying)


@pytest.mark.parametrize(
    ("name", "call", "left"),
    [("save", 8, 2), ("index_tar", 3, 2), ("write_whole", 4, 3)],
    ids=["within a tar", "between a tar and its record", "within a record"],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    name: str,
    call: int,
    left: int,
    video: Path,
    latents: Path,
    tmp_path: Path,
    encode_into: EncodeInto,
) -> None:
    output = tmp_path / "out"

    def encode_and_die() -> None:
        torch.set_num_threads(1)  # a forked process has no other threads
        die_at(call, name)
        encode_into(video, output, HOW)

    process = multiprocessing.get_context("fork").Process(target=encode_and_die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (output / INDEX_NAME).exists()
    assert len(list((output / ".work").glob("*.json"))) == left
    (output / f"part-000000.tar.{2**22 + 1}.part").write_bytes(b"of another time")
    summary, encoded = encode_into(video, output, HOW)
    assert summary.clips == sum(CLIPS)
    assert 0 < encoded < summary.clips
    assert contents(output) == contents(latents)


def test_what_was_done_is_not_done_again_unless_it_changed(
    video: Path, latents: Path, tmp_path: Path, encode_into: EncodeInto, monkeypatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("coordtok.inference.encode_shards._finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            encode_into(video, output, HOW)
    with open(output / "part-000001.tar", "ab") as tar:
        tar.write(b"more")
    (output / ".work/part-000002.tar.json").write_text("{")
    (output / "part-000003.tar").unlink()
    _, encoded = encode_into(video, output, HOW)
    assert encoded == sum(CLIPS[3:])
    assert contents(output) == contents(latents)
    assert encode_into(video, output, HOW)[1] == 0


def test_unreadable_videos_are_named_and_counted_and_lanes_never_empty(
    tmp_path: Path, encode_into: EncodeInto
) -> None:
    short = encode_raw(film(1, 20))
    shards = [
        {**members("good", 0, 20), "dead.npy": b"\0" * 2000, "cut.npy": short[:-1]},
        {"all.npy": b"\0" * 2000, "json.npy": short, "json.json": b"["},
        {"wrong.npy": encode_raw(film(1, 20, 24, 16)), **members("last", 1, 8)},
        members("more", 2, 8),
    ]
    video = write_video(tmp_path / "video", shards, lanes=4)
    output = tmp_path / "out"
    summary, _ = encode_into(video, output, HOW)
    assert summary == Summary(5, 4, 2, summary.bytes, 5)
    skipped = [json.loads(line) for line in (output / "skipped.jsonl").read_text().splitlines()]
    assert [each["key"] for each in skipped] == ["dead", "cut", "all", "json", "wrong"]
    assert "no frames" in skipped[1]["reason"]
    assert skipped[4]["shard"] == "part-000002.tar"
    assert {key.rpartition("-f")[0] for key in tensors(output)} == {"good", "last", "more"}
    index = open_shards(str(output)).index
    assert [len(shard.samples) for shard in index.shards] == [3, 0, 1, 1]
    assert index.lanes == 2


def test_strange_keys_become_names_that_tars_and_disks_take(
    tmp_path: Path, encode_into: EncodeInto
) -> None:
    keys = ["../../up", "a/b", "ü" * 45, "long" * 20]
    shards = [members(key, number, 8) for number, key in enumerate(keys)]
    video = write_video(tmp_path / "video", shards)
    encode_into(video, tmp_path / "out", HOW)
    found = set(tensors(tmp_path / "out"))
    assert len(found) == 4
    assert all(key.isascii() and "/" not in key and not key.startswith(".") for key in found)


def test_nothing_readable(tmp_path: Path, encode_into: EncodeInto) -> None:
    video = write_video(tmp_path / "video", [{"dead.npy": b"\0" * 2000}])
    with pytest.raises(DataError, match=r"no video in .* can be read; the first: dead"):
        encode_into(video, tmp_path / "out", HOW)
    assert not (tmp_path / "out" / INDEX_NAME).exists()


def test_another_size_than_the_models(tmp_path: Path, encode_into: EncodeInto) -> None:
    video = write_video(tmp_path / "video", [members("v", 0, 8)])
    index = ShardIndex.from_json((video / INDEX_NAME).read_text(), "index.json")
    other = dataclasses.replace(index, video=dataclasses.replace(index.video, height=32))
    (video / INDEX_NAME).write_text(other.to_json())
    with pytest.raises(DataError, match=r"holds frames of 32 x 24 \(H x W\), the model takes 16"):
        encode_into(video, tmp_path / "out", HOW)
    assert not (tmp_path / "out").exists()


def test_latents_are_not_encoded_again(
    latents: Path, tmp_path: Path, encode_into: EncodeInto
) -> None:
    with pytest.raises(DataError, match="holds latents where video is wanted"):
        encode_into(latents, tmp_path / "out", HOW)


@pytest.mark.parametrize(
    ("how", "name"),
    [
        (Encoding(dtype="bfloat16", batch=2, workers=0), "dtype float32, not bfloat16"),
        (Encoding(dtype="float32", batch=3, workers=0), "batch 2, not 3"),
        (Encoding(WindowChoice(2), "float32", 2, 0), "windows all, not 2"),
    ],
)
def test_a_folder_begun_with_other_settings_is_refused(
    how: Encoding, name: str, video: Path, latents: Path, encode_into: EncodeInto
) -> None:
    before = contents(latents)
    with pytest.raises(ConfigError, match=f"was begun with {name}"):
        encode_into(video, latents, how)
    assert contents(latents) == before


def test_foreign_folders_are_left_alone(
    video: Path, latents: Path, tmp_path: Path, encode_into: EncodeInto
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"other is not empty and has no encode\.json"):
        encode_into(video, other, HOW)
    with pytest.raises(DataError, match=r"cannot use .* as a folder"):
        encode_into(video, other / "thesis.txt", HOW)
    with pytest.raises(DataError, match=r"shards is not empty and has no encode\.json"):
        encode_into(video, video, HOW)
    damaged = tmp_path / "damaged"
    shutil.copytree(latents, damaged)
    (damaged / "encode.json").write_text("{")
    with pytest.raises(DataError, match=r"encode\.json is damaged"):
        encode_into(video, damaged, HOW)


def test_another_tokenizer_is_noticed(
    video: Path, export: Path, tokenizer: CoordTok, latents: Path, tmp_path: Path
) -> None:
    weights = {name: tensor * 1.01 for name, tensor in tokenizer.state_dict().items()}
    write_export(tmp_path / "other", read_card(export), weights)
    told = ["--output", latents, "--dtype", "float32", "--batch", "2", "--workers", "0"]
    error = finish(
        "encode.py", "--model", tmp_path / "other", "--shards", video, *told, ranks=2, code=2
    ).output
    assert error.count("error:") == 1
    assert "was begun with tokenizer" in error
    assert "Traceback" not in error


def test_planes_that_are_not_finite_are_an_error(
    video: Path, tmp_path: Path, tokenizer: CoordTok, encode_into: EncodeInto, monkeypatch
) -> None:
    true = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda *args: true(*args).map(lambda plane: plane / 0))
    with pytest.raises(CheckpointError, match="are not finite: use --compute-dtype float32"):
        encode_into(video, tmp_path / "out", HOW)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="batch is 0"):
        Encoding(batch=0)
    with pytest.raises(ConfigError, match="workers -1"):
        Encoding(workers=-1)
