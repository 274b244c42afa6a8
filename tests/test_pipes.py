"""A pipe that nobody writes to, and a device without end, in place of a file of any kind: no reader
waits for them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coordtok.config.load import load_config
from coordtok.data.clips import read_clips
from coordtok.data.index import ShardIndex, VideoSpec
from coordtok.data.tars import index_tar
from coordtok.errors import UserError
from coordtok.evaluation.linear_codec import LinearCodec
from coordtok.geometry.latent import LatentShape
from coordtok.losses.vgg_files import read_state_dict
from coordtok.pretrained.official.release_file import load_official
from coordtok.pretrained.official.statistics_log import read_statistics
from coordtok.storage.checksums import sha256_of_file
from coordtok.storage.json_files import read_json
from coordtok.video.codec import UnreadableVideo
from coordtok.video.source import SourceVideo
from data_prep.datasets import scan
from data_prep.options import BuildOptions

INDEX = ShardIndex(VideoSpec(8, 32, 32, None), {"name": "raw"}, 1, ())
READERS: dict[str, Callable[[Path], object]] = {
    "a config": lambda path: load_config(str(path)),
    "JSON": read_json,
    "a list of clips": lambda path: read_clips(path, INDEX, 8),
    "a shard": index_tar,
    "a linear codec": lambda path: LinearCodec.load(path, (8, 32, 32), 96),
    "a VGG": read_state_dict,
    "the authors' weights": load_official,
    "their log": lambda path: read_statistics(path, LatentShape.triplane((4, 4, 4), 2)),
    "a checksum": sha256_of_file,
    "a video": SourceVideo,
    "a list of videos": lambda path: scan(BuildOptions(str(path), "out", dataset="list")),
    "a table of videos": lambda path: scan(
        BuildOptions(str(path.parent), "out", dataset="kinetics", csv=str(path))
    ),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits(tmp_path: Path, reader: str, kind: str) -> None:
    path = tmp_path / "a.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises((UserError, UnreadableVideo, OSError)):
        READERS[reader](path)
