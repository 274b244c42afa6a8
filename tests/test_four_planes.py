"""A latent of other planes than the paper's, from its config to videos: two content planes, each
read at its half of the clip, beside yt and xt."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coordtok.config.load import build
from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.config.schema import RunConfig
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import one_per_sample
from coordtok.data.latents import LatentReader, LatentSpec
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.geometry.latent import LatentShape, Plane
from coordtok.geometry.planes import Planes, planes_of
from coordtok.inference.decode_shards import DecodeRequest, decode
from coordtok.inference.encode_shards import Encoding, encode
from coordtok.inference.generation import Generation
from coordtok.inference.reconstruct import Decoding
from coordtok.inference.sample_videos import SampleRequest, sample_videos
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import GeneratorSettings, TokenizerId
from coordtok.train.tasks.generator import GeneratorTask
from coordtok.video.codec import count_frames
from tests.support.tiny import TINY

LATENT = LatentShape(
    (
        Plane("early", ("y", "x"), (2, 6), 4, patch=(2, 3), time=(0.0, 0.5)),
        Plane("late", ("y", "x"), (2, 6), 3, patch=(2, 3), time=(0.5, 1.0)),
        Plane("yt", ("t", "y"), (4, 2), 2, patch=(2, 2)),
        Plane("xt", ("t", "x"), (4, 6), 2, patch=(2, 3)),
    )
)
HALVES = {"early": range(4), "late": range(4, 8)}
"""Frames of a clip whose time, k / 7, is in a content plane's part."""
IDENTITY = TokenizerId("four planes", "4" * 64)


@dataclass(frozen=True)
class FourPlanes(TokenizerModelConfig):
    @property
    def latent(self) -> LatentShape:
        return LATENT


@dataclass(frozen=True)
class FourPlaneDiT(DiTModelConfig):
    @property
    def latent(self) -> LatentShape:
        return LatentShape(tuple(replace(plane, patch=(2, 2)) for plane in LATENT.planes))


GENERATOR = FourPlaneDiT(dim=16, heads=2, layers=1)


@pytest.fixture(scope="module")
def tokenizer() -> CoordTok:
    torch.manual_seed(0)
    return CoordTok(FourPlanes(**asdict(TINY))).eval()


@pytest.fixture(scope="module")
def latents(
    tokenizer: CoordTok, clip_shards: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenedShards:
    """Latent shards of all clips, float32."""
    folder = tmp_path_factory.mktemp("four") / "latents"
    how = Encoding(dtype="float32", workers=0)
    encode(tokenizer, IDENTITY, open_shards(str(clip_shards)), folder, how)
    return open_shards(str(folder))


@pytest.fixture
def generator(latents: OpenedShards) -> TriplaneDiT:
    """As from an export; random weights, none of them zero."""
    torch.manual_seed(1)
    model = TriplaneDiT(GENERATOR).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    task = task_on(latents)
    model.settings = GeneratorSettings(task.facts["statistics"], IDENTITY)
    model.statistics = task.statistics
    return model


def task_on(latents: OpenedShards) -> GeneratorTask:
    run = build(
        RunConfig,
        {
            "run_dir": "runs/four",
            "model": {"name": "dit"},
            "data": {"shards": latents.location},
            "train": {"steps": 1, "global_batch": 2},
        },
    )
    return GeneratorTask(replace(run, model=GENERATOR), GENERATOR, torch.device("cpu"), [latents])


def whole(latents: OpenedShards) -> ClipBatch:
    """All clips in one batch."""
    read = LatentReader(LatentSpec.of(latents.index, latents.location))
    clips = one_per_sample(latents.index, read.frames, 0)
    (batch,) = ClipReader(latents, clips, read, batch=len(clips))
    assert len(batch.numbers) == latents.index.samples
    return batch


def planes_in(batch: ClipBatch) -> Planes:
    return planes_of(LATENT, (batch.data[name] for name in LATENT.names))


def test_a_model_holds_planes_of_the_shapes_that_it_declares(tokenizer: CoordTok) -> None:
    video = torch.randint(0, 256, (2, *TINY.video_size, 3), dtype=torch.uint8)
    planes = tokenizer.encode(video)
    assert {name: tuple(plane.shape[1:]) for name, plane in planes._asdict().items()} == {
        "early": (2, 6, 4), "late": (2, 6, 3), "yt": (4, 2, 2), "xt": (4, 6, 2)
    }  # fmt: skip
    assert tokenizer.decoder.embed.in_features == 4 + 3 + 2 + 2
    assert tokenizer.decode(planes).shape == video.shape


@torch.no_grad()
@pytest.mark.parametrize("name", HALVES)
def test_a_content_plane_shows_in_the_frames_of_its_part_alone(
    tokenizer: CoordTok, name: str
) -> None:
    """Each frame is decoded by itself, because the patches of a pass attend to each other."""
    planes = tokenizer.encode(torch.randint(0, 256, (1, *TINY.video_size, 3), dtype=torch.uint8))
    changed = planes._make(
        torch.randn_like(plane) if each == name else plane
        for each, plane in planes._asdict().items()
    )
    before, after = (
        tokenizer.decode(each, None, tokenizer.decoder.grid.per_slab, grouping="contiguous")
        for each in (planes, changed)
    )
    differs = (before != after).flatten(2).any(dim=2).squeeze(0)
    assert differs.nonzero().flatten().tolist() == list(HALVES[name])


def test_latent_shards_hold_the_planes_and_their_statistics(
    tokenizer: CoordTok, latents: OpenedShards
) -> None:
    spec = LatentSpec.of(latents.index, latents.location)
    assert spec.latent.difference(LATENT) is None
    assert spec.latent.planes[1].time == (0.5, 1.0)
    planes = planes_in(whole(latents))
    normal = task_on(latents).statistics.normalise(planes)
    for plane in normal:
        values = plane.double().flatten(0, 2)
        assert values.mean(dim=0).abs().max() < 1e-5
        assert (values.std(dim=0, correction=0) - 1).abs().max() < 1e-5


def test_a_generator_trains_on_them(latents: OpenedShards, generator: TriplaneDiT) -> None:
    loss_B = task_on(latents).loss(generator, whole(latents))["loss"]
    loss_B.mean().backward()
    assert len(generator.planes) == 4
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_its_samples_become_videos(
    tokenizer: CoordTok, generator: TriplaneDiT, tmp_path: Path
) -> None:
    how = Generation(SamplerConfig("euler", steps=2), batch=2)
    request = SampleRequest(3, how, Decoding(), keep_latents=True)
    made = sample_videos(generator, "5" * 64, tokenizer, IDENTITY, tmp_path / "out", request)
    assert made == 3
    stored = load_file(tmp_path / "out/00000002.safetensors")
    assert {name: tuple(plane.shape) for name, plane in stored.items()} == LATENT.shapes
    assert count_frames((tmp_path / "out/00000002.mp4").read_bytes()) == TINY.frames


def test_latent_shards_become_videos(
    tokenizer: CoordTok, latents: OpenedShards, tmp_path: Path
) -> None:
    clips = latents.index.samples
    assert decode(tokenizer, IDENTITY, latents, tmp_path / "out", DecodeRequest()) == clips
    assert len(list((tmp_path / "out").glob("*.mp4"))) == clips
