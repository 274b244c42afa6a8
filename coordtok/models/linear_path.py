"""A linear codec in the shape of the planes, beside the transformers (`model.linear_path`).

A node of a plane stands for a cell, all pixels of the clip behind it: of xy some rows and columns
over all frames, of yt some frames and rows over the whole width. The encoder adds to each plane the
cells' coefficients, one plane after another on what those before leave; the decoder adds to each
patch what its three nodes' coefficients say of it. `fit` takes principal components of training
clips, so that a model is a codec from its first step on; then all of it is trained.

The encoder and the decoder have weights of their own, because ZeRO-3 gathers parameters module by
module.

Shapes: B batch, G passes, N patches of a pass, T frames, H rows, W columns, R and S rows and
columns of a plane, L = R * S its cells, C channels, P numbers of a cell, Q numbers of a patch,
K patches of a cell.
"""

import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from coordtok.config.models import TokenizerModelConfig
from coordtok.errors import ConfigError
from coordtok.geometry.latent import AXES, Plane, Size3
from coordtok.geometry.pixels import from_uint8
from coordtok.geometry.planes import Planes

_MOST_CELLS = 6000
"""Cells of a plane that a fit looks at."""
_LEAST_STD = 1e-6
_OVERSAMPLING = 16
_POWER_ITERATIONS = 3
BY_PLACE = frozenset({"cpu"})
"""Devices that decode all patches of one place together."""


def cell_size(plane: Plane, video: Size3) -> Size3:
    """Frames, rows and columns of pixels behind a node of `plane` in a clip of size `video`."""
    nodes = dict(zip(plane.axes, plane.size))
    t, y, x = (whole // nodes.get(axis, 1) for axis, whole in zip(AXES, video))
    return t, y, x


def cut(video_BTHW3: torch.Tensor, cell: Size3) -> torch.Tensor:
    """The cells of a plane, row-major: (B, L, P)."""
    t, y, x = cell
    return rearrange(video_BTHW3, "b (u t) (v y) (w x) c -> b (u v w) (t y x c)", t=t, y=y, x=x)


def uncut(cells_BLP: torch.Tensor, cell: Size3, video: Size3) -> torch.Tensor:
    """The inverse of `cut`: (B, T, H, W, 3)."""
    (t, y, x), (u, v, w) = cell, (whole // part for whole, part in zip(video, cell))
    return rearrange(
        cells_BLP, "b (u v w) (t y x c) -> b (u t) (v y) (w x) c", u=u, v=v, w=w, t=t, y=y, x=x, c=3
    )


class CellAnalysis(nn.Module):
    """A video's coefficients on one plane, and what they leave of it for the next."""

    def __init__(self, plane: Plane, video: Size3, is_last: bool) -> None:
        super().__init__()
        self.plane, self.video = plane, video
        self.cell = cell_size(plane, video)
        numbers = math.prod(self.cell) * 3
        self.analysis = nn.Parameter(torch.empty(plane.channels, numbers))
        self.synthesis = None if is_last else nn.Parameter(torch.empty(plane.channels, numbers))
        nn.init.normal_(self.analysis, std=numbers**-0.5)
        if self.synthesis is not None:
            nn.init.normal_(self.synthesis, std=0.1 * plane.channels**-0.5)

    def forward(self, video_BTHW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, R, S, C) and (B, T, H, W, 3), float32."""
        plane_BLC = cut(video_BTHW3, self.cell) @ self.analysis.float().T
        if self.synthesis is not None:
            explained_BLP = plane_BLC @ self.synthesis.float()
            video_BTHW3 = video_BTHW3 - uncut(explained_BLP, self.cell, self.video)
        return plane_BLC.unflatten(1, self.plane.size), video_BTHW3


class LinearEncoder(nn.Module):
    """What the linear path adds to the planes of a video."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))
        planes, video = config.latent.planes, config.video_size
        self.cells = nn.ModuleList(
            CellAnalysis(plane, video, plane is planes[-1]) for plane in planes
        )

    def forward(
        self, video_BTHW3: torch.Tensor, is_real_BT: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """(B, R, S, C) of each plane, float32; padded frames count as the mean colour."""
        is_bytes = video_BTHW3.dtype == torch.uint8
        rest = (from_uint8(video_BTHW3) if is_bytes else video_BTHW3.float()) - self.mean.float()
        if is_real_BT is not None:
            rest = rest.masked_fill(~is_real_BT[:, :, None, None, None], 0)
        planes = []
        for cells in self.cells:
            plane_BRSC, rest = cells(rest)
            planes.append(plane_BRSC)
        return planes


class CellSynthesis(nn.Module):
    """What one plane's coefficients say of a patch, by where in its cell the patch lies."""

    def __init__(self, plane: Plane, video: Size3, patch: Size3) -> None:
        super().__init__()
        self.plane = plane
        t, y, x = (whole // part for whole, part in zip(cell_size(plane, video), patch))
        self.patches: Size3 = (t, y, x)
        numbers = math.prod(patch) * 3
        self.synthesis = nn.Parameter(torch.empty(t * y * x, plane.channels, numbers))
        nn.init.normal_(self.synthesis, std=0.1 * plane.channels**-0.5)

    def forward(self, plane_BRSC: torch.Tensor, index_BN3: torch.Tensor) -> torch.Tensor:
        """(B, N, Q), float32."""
        size = torch.tensor(self.patches).to(index_BN3.device, non_blocking=True)
        place, within = index_BN3 // size, index_BN3 % size
        _, rows, columns = self.patches
        within_BN = (within[..., 0] * rows + within[..., 1]) * columns + within[..., 2]
        first, second = (place[..., AXES.index(axis)] for axis in self.plane.axes)
        node_BN = first * self.plane.size[1] + second
        node_BN = node_BN + torch.arange(len(node_BN), device=node_BN.device)[:, None] * math.prod(
            self.plane.size
        )
        # embedding, because its gradient is the same on every run, unlike that of indexing.
        read_BNC = F.embedding(node_BN, plane_BRSC.float().flatten(0, 2))
        synthesis_KCQ = self.synthesis.float()
        if read_BNC.device.type in BY_PLACE:
            return _products_by_place(read_BNC, within_BN, synthesis_KCQ)
        table_BND = F.embedding(within_BN, synthesis_KCQ.flatten(1))
        table_BNCQ = table_BND.unflatten(-1, synthesis_KCQ.shape[1:])
        return (read_BNC.unsqueeze(-2) @ table_BNCQ).squeeze(-2)


def _products_by_place(
    read_BNC: torch.Tensor, within_BN: torch.Tensor, synthesis_KCQ: torch.Tensor
) -> torch.Tensor:
    """The product of each patch's coefficients with the matrix of its place, (B, N, Q).

    All patches of one place together: a copy of the matrix for each patch, which a GPU hardly
    notices, takes a CPU several times as long. It would make a GPU wait for the host, which has to
    know how many patches each place has.
    """
    within_M, order_M = within_BN.flatten().sort(stable=True)
    counts_K = torch.bincount(within_M, minlength=len(synthesis_KCQ))
    first_K = counts_K.cumsum(0) - counts_K
    rank_M = torch.arange(len(within_M)) - first_K[within_M]
    read_MC = read_BNC.flatten(0, 1)
    grouped = read_MC.new_zeros(len(synthesis_KCQ), int(counts_K.max()), read_MC.shape[1])
    grouped = grouped.index_put((within_M, rank_M), read_MC[order_M])
    sorted_MQ = torch.bmm(grouped, synthesis_KCQ)[within_M, rank_M]
    return torch.empty_like(sorted_MQ).index_put((order_M,), sorted_MQ).view(*within_BN.shape, -1)


class LinearDecoder(nn.Module):
    """What the linear path adds to the pixels of patches."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.patch = config.decoder_patch
        self.mean = nn.Parameter(torch.zeros(3))
        self.cells = nn.ModuleList(
            CellSynthesis(plane, config.video_size, config.decoder_patch)
            for plane in config.latent.planes
        )

    def forward(self, planes: Planes, index_BGN3: torch.Tensor) -> torch.Tensor:
        """(B, G, N, pt, ph, pw, 3), float32."""
        index_BN3 = index_BGN3.flatten(1, 2)
        parts = [cells(plane, index_BN3) for cells, plane in zip(self.cells, planes)]
        pixels_BNQ = torch.stack(parts).sum(0)
        return pixels_BNQ.view(*index_BGN3.shape[:3], *self.patch, 3) + self.mean.float()


@torch.no_grad()
def fit(config: TokenizerModelConfig, clips_BTHW3: torch.Tensor) -> dict[str, torch.Tensor]:
    """The linear path's parameters by their names in `CoordTok`, fitted to clips (uint8).

    Of each plane in turn the principal components of its cells, on what the planes before leave,
    by randomised subspace iteration (Halko et al. 2011). Coefficients have unit variance. The same
    clips give the same values.

    Raises:
        ConfigError: fewer cells than channels.
    """
    rest = from_uint8(clips_BTHW3)
    mean_3 = rest.mean((0, 1, 2, 3))
    rest -= mean_3
    weights = {"encoder.linear.mean": mean_3, "decoder.linear.mean": mean_3}
    for number, plane in enumerate(config.latent.planes):
        cell = cell_size(plane, config.video_size)
        components_CP, std_C = _principal_components(_some_cells(rest, cell), plane)
        for clip in rest.split(1):  # one by one: the cells of all would be a copy of all clips
            explained_BLP = cut(clip, cell) @ components_CP.T @ components_CP
            clip -= uncut(explained_BLP, cell, config.video_size)
        synthesis_CP = components_CP * std_C[:, None]
        weights[f"encoder.linear.cells.{number}.analysis"] = components_CP / std_C[:, None]
        if number < len(config.latent.planes) - 1:
            weights[f"encoder.linear.cells.{number}.synthesis"] = synthesis_CP
        weights[f"decoder.linear.cells.{number}.synthesis"] = _by_patch(
            synthesis_CP, cell, config.decoder_patch
        )
    return weights


def principal_components(rows_LP: torch.Tensor, count: int, power_iterations: int) -> torch.Tensor:
    """The first `count` right singular vectors of `rows_LP`, (count, P), by randomised subspace
    iteration (Halko et al. 2011): the same on every call, with torch's generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rank = min(count + _OVERSAMPLING, *rows_LP.shape)
        _, _, basis = torch.svd_lowrank(rows_LP, rank, power_iterations)
    return basis[:, :count].T.contiguous()


def _some_cells(clips_BTHW3: torch.Tensor, cell: Size3) -> torch.Tensor:
    """(L, P), at most `_MOST_CELLS`, spread evenly over all."""
    parts, before = [], 0
    per_clip = math.prod(clips_BTHW3.shape[1:4]) // math.prod(cell)
    step = -(-len(clips_BTHW3) * per_clip // _MOST_CELLS)
    for clip in clips_BTHW3.split(1):
        parts.append(cut(clip, cell)[0, -before % step :: step])
        before += per_clip
    return torch.cat(parts)


def _principal_components(
    cells_LP: torch.Tensor, plane: Plane
) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal rows (C, P), and the standard deviations of their coefficients, (C,)."""
    if len(cells_LP) < plane.channels:
        raise ConfigError(
            f"the training clips have {len(cells_LP)} cells for {plane}, fewer than its channels; "
            "give more clips, or set model.linear_path=false"
        )
    components_CP = principal_components(cells_LP, plane.channels, _POWER_ITERATIONS)
    std_C = (cells_LP @ components_CP.T).square().mean(0).sqrt()
    return components_CP, std_C.clamp(min=_LEAST_STD)


def _by_patch(synthesis_CP: torch.Tensor, cell: Size3, patch: Size3) -> torch.Tensor:
    """(K, C, Q)."""
    (u, v, w), (t, y, x) = (whole // part for whole, part in zip(cell, patch)), patch
    return rearrange(
        synthesis_CP, "c (u t v y w x d) -> (u v w) c (t y x d)", u=u, v=v, w=w, t=t, y=y, x=x, d=3
    ).contiguous()
