"""A linear codec in the shape of the planes, beside the transformers (`model.linear_path`).

A node of a plane stands for a cell, all pixels of the clip behind it: of xy some rows and columns
over all frames of its part of the time, of yt some frames and rows over the whole width. Planes
that differ in that part alone are a group and share their weights. The encoder adds to each plane
the cells' coefficients, one group after another on what those before leave; the decoder adds to
each patch what the coefficients of its node on every plane, and of the nodes around that one, say
of it. `linear_fit` fits it to training clips, so that a model is a codec from its first step on.

The encoder and the decoder have weights of their own, because ZeRO-3 gathers parameters module by
module.

Shapes: B batch, G passes, N patches of a pass, T frames, H rows, W columns, R and S rows and
columns of a plane, L cells of the planes of a group, R * S of each, C channels, A = nodes * C of a
node and those around it, P numbers of a cell, Q numbers of a patch, K patches of a cell.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from coordtok.config.models import TokenizerModelConfig
from coordtok.geometry.latent import AXES, Plane, Size2, Size3
from coordtok.geometry.pixels import from_uint8
from coordtok.geometry.planes import Planes, by_group

BY_PLACE = frozenset({"cpu"})
"""Devices that decode all patches of one place together."""


def cell_size(group: Sequence[Plane], video: Size3) -> Size3:
    """Frames, rows and columns of pixels behind a node of a group's planes in a clip of size
    `video`."""
    nodes = {"t": len(group), **dict(zip(group[0].axes, group[0].size))}
    t, y, x = (whole // nodes.get(axis, 1) for axis, whole in zip(AXES, video))
    return t, y, x


def cut(video_BTHW3: torch.Tensor, cell: Size3) -> torch.Tensor:
    """The cells of a group of planes, one plane after another, row-major: (B, L, P)."""
    t, y, x = cell
    return rearrange(video_BTHW3, "b (u t) (v y) (w x) c -> b (u v w) (t y x c)", t=t, y=y, x=x)


def uncut(cells_BLP: torch.Tensor, cell: Size3, video: Size3) -> torch.Tensor:
    """The inverse of `cut`: (B, T, H, W, 3)."""
    (t, y, x), (u, v, w) = cell, (whole // part for whole, part in zip(video, cell))
    return rearrange(
        cells_BLP, "b (u v w) (t y x c) -> b (u t) (v y) (w x) c", u=u, v=v, w=w, t=t, y=y, x=x, c=3
    )


def nodes_around(
    rows: torch.Tensor, columns: torch.Tensor, size: Size2, reach: int
) -> torch.Tensor:
    """The nodes up to `reach` rows and columns away, row-major, as numbers of the plane's nodes:
    (..., (2 * reach + 1)^2). Beyond an edge stands the node at the edge."""
    if not reach:
        return (rows * size[1] + columns).unsqueeze(-1)
    steps = torch.arange(-reach, reach + 1, device=rows.device)
    near_rows = (rows.unsqueeze(-1) + steps).clamp(0, size[0] - 1)
    near_columns = (columns.unsqueeze(-1) + steps).clamp(0, size[1] - 1)
    return (near_rows.unsqueeze(-1) * size[1] + near_columns.unsqueeze(-2)).flatten(-2)


class CellAnalysis(nn.Module):
    """A video's coefficients on the planes of a group, and what they leave of it for the next."""

    def __init__(self, group: Sequence[Plane], video: Size3, is_last: bool) -> None:
        super().__init__()
        plane, self.video = group[0], video
        self.grid = (len(group), *plane.size) if len(group) > 1 else plane.size
        self.cell = cell_size(group, video)
        numbers = math.prod(self.cell) * 3
        self.analysis = nn.Parameter(torch.empty(plane.channels, numbers))
        self.synthesis = None if is_last else nn.Parameter(torch.empty(plane.channels, numbers))
        nn.init.normal_(self.analysis, std=numbers**-0.5)
        if self.synthesis is not None:
            nn.init.normal_(self.synthesis, std=0.1 * plane.channels**-0.5)

    def forward(self, video_BTHW3: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """(B, R, S, C) of each plane and (B, T, H, W, 3), float32."""
        planes_BLC = cut(video_BTHW3, self.cell) @ self.analysis.float().T
        if self.synthesis is not None:
            explained_BLP = planes_BLC @ self.synthesis.float()
            video_BTHW3 = video_BTHW3 - uncut(explained_BLP, self.cell, self.video)
        planes = planes_BLC.unflatten(1, self.grid)
        # unbind of one would cost a copy in the backward pass.
        return planes.unbind(1) if len(self.grid) > 2 else (planes,), video_BTHW3


class LinearEncoder(nn.Module):
    """What the linear path adds to the planes of a video."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))
        groups, video = config.latent.plane_groups, config.video_size
        self.cells = nn.ModuleList(
            CellAnalysis(group, video, group is groups[-1]) for group in groups
        )

    def forward(
        self, video_BTHW3: torch.Tensor, is_real_BT: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """(B, R, S, C) of each plane, float32; padded frames count as the mean colour."""
        is_bytes = video_BTHW3.dtype == torch.uint8
        rest = (from_uint8(video_BTHW3) if is_bytes else video_BTHW3.float()) - self.mean.float()
        if is_real_BT is not None:
            rest = rest.masked_fill(~is_real_BT[:, :, None, None, None], 0)
        planes: list[torch.Tensor] = []
        for cells in self.cells:
            found, rest = cells(rest)
            planes += found
        return planes


class CellSynthesis(nn.Module):
    """What the coefficients of a group's planes say of a patch, by where in its cell the patch
    lies: those of its node and of the nodes up to `reach` rows and columns away on its plane."""

    def __init__(self, group: Sequence[Plane], video: Size3, patch: Size3, reach: int) -> None:
        super().__init__()
        self.group, self.reach = tuple(group), reach
        plane = group[0]
        t, y, x = (whole // part for whole, part in zip(cell_size(group, video), patch))
        self.patches: Size3 = (t, y, x)
        numbers = math.prod(patch) * 3
        inputs = (2 * reach + 1) ** 2 * plane.channels
        self.synthesis = nn.Parameter(torch.empty(t * y * x, inputs, numbers))
        nn.init.normal_(self.synthesis, std=0.1 * plane.channels**-0.5)

    def forward(self, planes: Sequence[torch.Tensor], index_BN3: torch.Tensor) -> torch.Tensor:
        """(B, N, Q), float32, of the group's planes (B, R, S, C)."""
        patches = torch.tensor(self.patches).to(index_BN3.device, non_blocking=True)
        place, within = index_BN3 // patches, index_BN3 % patches
        _, rows, columns = self.patches
        within_BN = (within[..., 0] * rows + within[..., 1]) * columns + within[..., 2]
        axes, size = self.group[0].axes, self.group[0].size
        first, second = (place[..., AXES.index(axis)] for axis in axes)
        nodes_BNk = nodes_around(first, second, size, self.reach)
        clips = torch.arange(len(nodes_BNk), device=nodes_BNk.device)
        nodes_BNk = nodes_BNk + clips[:, None, None] * (len(self.group) * math.prod(size))
        table_BLC = planes[0].float().flatten(1, 2)
        if len(self.group) > 1:
            nodes_BNk = nodes_BNk + place[..., AXES.index("t"), None] * math.prod(size)
            table_BLC = torch.cat([plane.float().flatten(1, 2) for plane in planes], dim=1)
        # embedding, because its gradient is the same on every run, unlike that of indexing.
        read_BNA = F.embedding(nodes_BNk, table_BLC.flatten(0, 1)).flatten(-2)
        synthesis_KAQ = self.synthesis.float()
        if read_BNA.device.type in BY_PLACE:
            return _products_by_place(read_BNA, within_BN, synthesis_KAQ)
        table_BND = F.embedding(within_BN, synthesis_KAQ.flatten(1))
        table_BNAQ = table_BND.unflatten(-1, synthesis_KAQ.shape[1:])
        return (read_BNA.unsqueeze(-2) @ table_BNAQ).squeeze(-2)


def _products_by_place(
    read_BNA: torch.Tensor, within_BN: torch.Tensor, synthesis_KAQ: torch.Tensor
) -> torch.Tensor:
    """The product of each patch's coefficients with the matrix of its place, (B, N, Q).

    All patches of one place together: a copy of the matrix for each patch, which a GPU hardly
    notices, takes a CPU several times as long. It would make a GPU wait for the host, which has to
    know how many patches each place has.
    """
    within_M, order_M = within_BN.flatten().sort(stable=True)
    counts_K = torch.bincount(within_M, minlength=len(synthesis_KAQ))
    first_K = counts_K.cumsum(0) - counts_K
    rank_M = torch.arange(len(within_M)) - first_K[within_M]
    read_MA = read_BNA.flatten(0, 1)
    grouped = read_MA.new_zeros(len(synthesis_KAQ), int(counts_K.max()), read_MA.shape[1])
    grouped = grouped.index_put((within_M, rank_M), read_MA[order_M])
    sorted_MQ = torch.bmm(grouped, synthesis_KAQ)[within_M, rank_M]
    return torch.empty_like(sorted_MQ).index_put((order_M,), sorted_MQ).view(*within_BN.shape, -1)


class LinearDecoder(nn.Module):
    """What the linear path adds to the pixels of patches."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.patch = config.decoder_patch
        self.mean = nn.Parameter(torch.zeros(3))
        self.latent = config.latent
        self.cells = nn.ModuleList(
            CellSynthesis(group, config.video_size, config.decoder_patch, config.linear_reach)
            for group in self.latent.plane_groups
        )

    def forward(self, planes: Planes, index_BGN3: torch.Tensor) -> torch.Tensor:
        """(B, G, N, pt, ph, pw, 3), float32."""
        index_BN3, groups = index_BGN3.flatten(1, 2), by_group(planes, self.latent)
        parts = [cells(tensors, index_BN3) for cells, tensors in zip(self.cells, groups)]
        pixels_BNQ = torch.stack(parts).sum(0)
        return pixels_BNQ.view(*index_BGN3.shape[:3], *self.patch, 3) + self.mean.float()
