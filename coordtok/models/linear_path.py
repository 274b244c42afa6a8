"""A linear codec in the shape of the planes, beside the transformers (`model.linear_path`).

A node of a plane stands for a cell, all pixels of the clip behind it: of xy some rows and columns
over all frames, of yt some frames and rows over the whole width. The encoder adds to each plane the
cells' coefficients, one plane after another on what those before leave; the decoder adds to each
patch what the coefficients of its node on every plane, and of the nodes around that one, say of it.
`linear_fit` fits it to training clips, so that a model is a codec from its first step on.

The encoder and the decoder have weights of their own, because ZeRO-3 gathers parameters module by
module.

Shapes: B batch, G passes, N patches of a pass, T frames, H rows, W columns, R and S rows and
columns of a plane, L = R * S its cells, C channels, A = nodes * C of a node and those around it,
P numbers of a cell, Q numbers of a patch, K patches of a cell.
"""

import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from coordtok.config.models import TokenizerModelConfig
from coordtok.geometry.latent import AXES, Plane, Size2, Size3
from coordtok.geometry.pixels import from_uint8
from coordtok.geometry.planes import Planes

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
    """What one plane's coefficients say of a patch, by where in its cell the patch lies: those of
    its node and of the nodes up to `reach` rows and columns away."""

    def __init__(self, plane: Plane, video: Size3, patch: Size3, reach: int) -> None:
        super().__init__()
        self.plane, self.reach = plane, reach
        t, y, x = (whole // part for whole, part in zip(cell_size(plane, video), patch))
        self.patches: Size3 = (t, y, x)
        numbers = math.prod(patch) * 3
        inputs = (2 * reach + 1) ** 2 * plane.channels
        self.synthesis = nn.Parameter(torch.empty(t * y * x, inputs, numbers))
        nn.init.normal_(self.synthesis, std=0.1 * plane.channels**-0.5)

    def forward(self, plane_BRSC: torch.Tensor, index_BN3: torch.Tensor) -> torch.Tensor:
        """(B, N, Q), float32."""
        size = torch.tensor(self.patches).to(index_BN3.device, non_blocking=True)
        place, within = index_BN3 // size, index_BN3 % size
        _, rows, columns = self.patches
        within_BN = (within[..., 0] * rows + within[..., 1]) * columns + within[..., 2]
        first, second = (place[..., AXES.index(axis)] for axis in self.plane.axes)
        nodes_BNk = nodes_around(first, second, self.plane.size, self.reach)
        clips = torch.arange(len(nodes_BNk), device=nodes_BNk.device)
        nodes_BNk = nodes_BNk + clips[:, None, None] * math.prod(self.plane.size)
        # embedding, because its gradient is the same on every run, unlike that of indexing.
        read_BNA = F.embedding(nodes_BNk, plane_BRSC.float().flatten(0, 2)).flatten(-2)
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
        self.cells = nn.ModuleList(
            CellSynthesis(plane, config.video_size, config.decoder_patch, config.linear_reach)
            for plane in config.latent.planes
        )

    def forward(self, planes: Planes, index_BGN3: torch.Tensor) -> torch.Tensor:
        """(B, G, N, pt, ph, pw, 3), float32."""
        index_BN3 = index_BGN3.flatten(1, 2)
        parts = [cells(plane, index_BN3) for cells, plane in zip(self.cells, planes)]
        pixels_BNQ = torch.stack(parts).sum(0)
        return pixels_BNQ.view(*index_BGN3.shape[:3], *self.patch, 3) + self.mean.float()
