"""Damaged and hostile files of torch.save, one for each state of a `random.Random`."""

import io
import random
from collections.abc import Mapping
from typing import Any

import torch

from tests.support.damaged_bytes import damaged_bytes
from tests.support.damaged_documents import odd_object

MOST = 1 << 40


def damaged_torch_file(content: Any, rng: random.Random) -> bytes:
    """A file that is almost one of `content`, damaged where it says what its bytes mean."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.7)
    data = file.getvalue()
    start = max(data.find(b"\x80\x02}"), 0)
    stop = min(len(data), start + rng.choice((200, 2000, 20_000)))
    return data[:start] + damaged_bytes(data[start:stop], rng).data + data[stop:]


def odd_weights(weights: Mapping[str, torch.Tensor], rng: random.Random) -> dict[Any, Any]:
    """Named weights with one thing that no model has."""
    odd: dict[Any, Any] = dict(weights)
    name = rng.choice(list(weights))
    tensor = weights[name]
    layered = [each for each in weights if ".layers.0." in each or ".blocks.0." in each] or [name]
    match rng.randrange(8):
        case 0:
            del odd[name]
        case 1:
            odd[name] = _flat(odd_object(rng))
        case 2:
            shape = list(tensor.shape) or [1]
            shape[rng.randrange(len(shape))] = rng.choice((0, 1, 7, 1000, MOST))
            odd[name] = torch.zeros(1, dtype=tensor.dtype).expand(shape)
        case 3:
            shapes = ((MOST,), (1 << 30, 1 << 30), (MOST, 0), (0,))
            odd[name] = torch.zeros(1).expand(rng.choice(shapes))
        case 4:
            number = rng.choice(("1", "99999", "9" * 20, "9" * 5000, "\u0663", "-1"))
            odd[rng.choice(layered).replace(".0.", f".{number}.", 1)] = tensor
        case 5:
            odd[rng.choice(("", "x", "\x00", 3, None, name + "x"))] = tensor
        case 6:
            kinds = (
                tensor.long(),
                tensor.to_sparse(),
                tensor.to(torch.complex64),
                tensor * torch.nan,
            )
            odd[name] = rng.choice(kinds)
        case _:
            odd[name] = rng.choice((tensor[None], tensor.flatten(), tensor[:0], tensor.double()))
    return odd


def _flat(value: Any) -> Any:
    """What is too deep to be saved, whatever reads it, is not in a file."""
    depth, inner = 0, value
    while isinstance(inner, list) and inner:
        depth, inner = depth + 1, inner[0]
    return inner if depth > 20 else value
