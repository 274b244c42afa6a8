"""Training a TriplaneDiT: the velocity from noise to the latents of one tokenizer.

Latents come from shards and are normalised with statistics that are fixed when the run begins, so
that more data later does not change what the model's numbers mean. Time, noise and dropped labels
are drawn on the host from each sample's own generator. The tokenizer is read only for the time
of a picture.

Shapes: B batch, M all numbers of a latent, F shown frames, H rows, W columns, 3 colours.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch

from coordtok import distributed
from coordtok.config.models import NO_LABEL, DiTModelConfig
from coordtok.config.schema import RunConfig
from coordtok.data.clip_reader import ClipBatch
from coordtok.data.latents import LatentReader, LatentSpec
from coordtok.data.loader import Batch
from coordtok.data.order import sample_rng
from coordtok.data.sample import SampleId
from coordtok.data.shards import OpenedShards
from coordtok.diffusion.flow import draw_time, flow_loss, interpolate, velocity_target
from coordtok.diffusion.statistics import LatentStatistics
from coordtok.errors import CheckpointError
from coordtok.geometry.planes import pack, planes_of, unpack
from coordtok.inference.generation import Generation, frame_rows, generate_chunk, plane_rows
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import GeneratorSettings, TokenizerId
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.train.tasks.sending import send
from coordtok.train.tasks.task import ClipScore, Headline

SHOWN_FRAMES = 8


class Draw(NamedTuple):
    """What is random about a clip: its time, its noise (M,), and the generator that goes on."""

    time: float
    noise: np.ndarray
    rng: np.random.Generator


class GeneratorTask:
    model_class = TriplaneDiT
    caption = "samples"
    usage = """\
                python scripts/sample.py --model exports/{name} --num 16 --output samples/{name}"""
    headline = Headline("loss", "loss", 4, "", {"loss_mean_velocity": "mean velocity"})

    def __init__(
        self,
        run: RunConfig,
        model: DiTModelConfig,
        device: torch.device,
        datasets: Sequence[OpenedShards],
        facts: dict[str, Any] | None = None,
    ) -> None:
        """facts: those of the checkpoint that goes on; made from the shards by default.

        Raises:
            ConfigError: the latents are of another shape than the model, or cannot be normalised.
            DataError: no latents, or of another tokenizer than `run.tokenizer`.
        """
        self.run, self.model, self.device = run, model, device
        self.latent = model.latent
        self.score_settings: dict[str, Any] = {}
        specs = [LatentSpec.of(dataset.index, dataset.location) for dataset in datasets]
        self._check(specs[0], datasets[0].location)
        self.spec = specs[0]
        self.facts = facts or _facts(specs, [dataset.weight for dataset in datasets])
        specs[0].check_tokenizer(TokenizerId(**self.facts["tokenizer"]), datasets[0].location)
        statistics = LatentStatistics.from_dict(self.facts["statistics"], self.latent)
        self.statistics = statistics.to(device)

    @classmethod
    def for_run(
        cls,
        run: RunConfig,
        device: torch.device,
        datasets: Sequence[OpenedShards],
        facts: dict[str, Any] | None,
    ) -> "GeneratorTask":
        assert isinstance(run.model, DiTModelConfig)
        return cls(run, run.model, device, datasets, facts)

    @classmethod
    def export_settings(cls, run: RunConfig, facts: dict[str, Any]) -> GeneratorSettings:
        return GeneratorSettings(
            facts["statistics"], TokenizerId(**facts["tokenizer"]), run.sampler
        )

    def _check(self, spec: LatentSpec, location: str) -> None:
        self.model.check_latent(spec.latent, location)
        if self.run.tokenizer is not None:
            tokenizer = TokenizerId(self.run.tokenizer, fingerprint(self.run.tokenizer))
            spec.check_tokenizer(tokenizer, location)

    def build_model(self) -> TriplaneDiT:
        model = TriplaneDiT(self.model)
        model.set_activation_checkpointing(self.run.train.activation_checkpointing)
        return model

    def fitted_weights(self) -> dict[str, torch.Tensor]:
        return {}

    def reader(self) -> LatentReader:
        return LatentReader(self.spec, self.model.classes or None)

    def loss(self, engine: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Of each clip, (B,) float32: mean squared error of the velocity at its drawn time."""
        draws = [self._draw(sample, "flow") for sample in batch.ids]
        label_B = self._labels(batch)
        if label_B is not None:
            dropped = [draw.rng.random() < self.model.label_dropout for draw in draws]
            label_B[torch.tensor(dropped)] = NO_LABEL
        return {"loss": self._flow_loss(engine, batch, draws, label_B)}

    def _draw(self, sample: SampleId, purpose: str) -> Draw:
        rng = sample_rng(self.run.seed, *sample, purpose)
        time = draw_time(rng, self.run.flow)
        noise_M = rng.standard_normal(self.latent.numbers, np.float32)
        return Draw(time, noise_M, rng)

    def _labels(self, batch: Batch) -> torch.Tensor | None:
        return batch.data["label"].clone() if self.model.classes else None

    def _flow_loss(
        self, engine: Any, batch: Batch, draws: list[Draw], label_B: torch.Tensor | None
    ) -> torch.Tensor:
        data_BM, noise_BM, time_B = self._path(batch, draws)
        if label_B is not None:
            label_B = send(label_B, self.device)
        predicted_BM = self._velocity(
            engine, interpolate(data_BM, noise_BM, time_B), time_B, label_B
        )
        return flow_loss(predicted_BM, velocity_target(data_BM, noise_BM))

    def _path(
        self, batch: Batch, draws: list[Draw]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalised data and noise, (B, M), and times, (B,), on the device."""
        planes = planes_of(self.latent, (batch.data[name] for name in self.latent.names))
        planes = planes.map(lambda plane: send(plane, self.device))
        data_BM = pack(self.statistics.normalise(planes))
        noise_BM = torch.from_numpy(np.stack([draw.noise for draw in draws]))
        time_B = torch.tensor([draw.time for draw in draws], dtype=torch.float32)
        noise_BM, time_B = (send(drawn, self.device) for drawn in (noise_BM, time_B))
        return data_BM, noise_BM, time_B

    def _velocity(
        self, engine: Any, x_BM: torch.Tensor, time_B: torch.Tensor, label_B: torch.Tensor | None
    ) -> torch.Tensor:
        return pack(engine(unpack(x_BM, self.latent), time_B, label_B))

    @torch.no_grad()
    def forward_check(self, engine: Any) -> float:
        """Loss on fixed random latents and noise, half-way between them."""
        rng = np.random.Generator(np.random.Philox(key=0))
        drawn = rng.standard_normal((2, 1, self.latent.numbers), np.float32)
        data_BM, noise_BM = torch.from_numpy(drawn).to(self.device).unbind()
        time_B = torch.full((1,), 0.5, device=self.device)
        x_BM = interpolate(data_BM, noise_BM, time_B)
        predicted_BM = self._velocity(engine, x_BM, time_B, None)
        return float(flow_loss(predicted_BM, velocity_target(data_BM, noise_BM)))

    @torch.no_grad()
    def score(self, engine: Any, batch: ClipBatch) -> dict[int, ClipScore]:
        """The loss at one time and noise of each clip, the same every time, beside that of
        predicting the mean velocity, which is zero between normalised noise and latents."""
        draws = [self._draw(sample, "validation") for sample in batch.ids]
        loss_B = self._flow_loss(engine, batch, draws, self._labels(batch)).tolist()
        data_BM, noise_BM, _ = self._path(batch, draws)
        target_BM = velocity_target(data_BM, noise_BM)
        mean_B = flow_loss(torch.zeros_like(target_BM), target_BM).tolist()
        return {
            number: ClipScore({"loss": loss_B[place], "loss_mean_velocity": mean_B[place]}, [])
            for place, number in batch.numbers.items()
        }

    def warning(self, values: dict[str, float]) -> str:
        return ""

    def samples(self, engine: Any, averaged: AbstractContextManager[None]) -> list[np.ndarray]:
        """Samples of the averaged weights, one a line: frames if the tokenizer is at hand, else
        their planes. All ranks make all of them, because they meet in every forward pass."""
        count, classes = self.run.train.sample_clips, self.model.classes
        how = Generation(self.run.sampler, self.run.seed, tuple(range(classes)), count)
        engine.eval()
        try:
            with averaged:
                planes = generate_chunk(engine, self.model, self.device, range(count), how)
        finally:
            engine.train()
        if not distributed.is_main():
            return []
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return plane_rows(planes)
        return frame_rows(tokenizer, self.statistics.denormalise(planes), SHOWN_FRAMES)

    def _tokenizer(self) -> CoordTok | None:
        """The export that made the latents, where it still is, whole and the same."""
        made_by = self.facts["tokenizer"]
        folder = self.run.tokenizer or made_by["path"]
        try:
            if fingerprint(folder) != made_by["fingerprint"]:
                return None
            return CoordTok.from_pretrained(folder, self.device)
        except CheckpointError:
            return None


def _facts(specs: list[LatentSpec], weights: list[float]) -> dict[str, Any]:
    """Statistics of the mixture, and which tokenizer its latents are of."""
    parts = [LatentStatistics.from_dict(spec.statistics, spec.latent) for spec in specs]
    tokenizer = specs[0].tokenizer
    return {
        "statistics": LatentStatistics.mixture(parts, weights).to_dict(),
        "tokenizer": {"path": tokenizer.path, "fingerprint": tokenizer.fingerprint},
    }
