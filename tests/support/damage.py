"""Damage to files, by what they hold: bytes that flip, lengths that lie, values of any type.

Every function takes bytes and gives damaged ones with a word for the class of damage, and details,
one for each state of a `random.Random`. For the tests of readers and for tests/campaign.
"""

import io
import json
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.support.damaged_bytes import Damaged, damaged_bytes
from tests.support.damaged_documents import (
    ODD_VALUES,
    damaged_json,
    damaged_yaml,
    encode,
    jsonable,
    odd_json,
    odd_yaml,
)

_BLOCK = tarfile.BLOCKSIZE


def damage(name: str, data: bytes, rng: random.Random) -> Damaged:
    """Damage the content of a file called `name`, mostly in the terms of its format."""
    ways = _WAYS.get(Path(name).suffix, _TEXT if _is_text(data) else ())
    if not ways or rng.random() < 0.25:
        return damaged_bytes(data, rng)
    try:
        return rng.choice(ways)(data, rng)
    except (ValueError, KeyError, IndexError, tarfile.TarError, zipfile.BadZipFile, yaml.YAMLError):
        return damaged_bytes(data, rng)


def _is_text(data: bytes) -> bool:
    return data.isascii() and b"\0" not in data


def _text(data: bytes, rng: random.Random) -> Damaged:
    text = data.decode()
    words = list(re.finditer(r"[^\s,]+", text))
    word = rng.choice(words)
    value = json.loads(jsonable(rng.choice(ODD_VALUES)))
    odd = value if isinstance(value, str) else str(value)
    changed = text[: word.start()] + odd + text[word.end() :]
    return Damaged(encode(changed), "words of a text", f"{word[0][:40]} = {odd[:40]!r}")


def _lines(data: bytes, rng: random.Random) -> Damaged:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    way = rng.choice(["gone", "twice", "long", "NUL", "swapped"])
    if way == "gone":
        del lines[at]
    elif way == "twice":
        lines.insert(at, lines[at])
    elif way == "long":
        lines[at] = b"x" * 3_000_000 + b"\n"
    elif way == "NUL":
        lines[at] = b"\0" + lines[at]
    else:
        rng.shuffle(lines)
    return Damaged(b"".join(lines), "lines of a text", f"line {at} {way}")


def _tar_header(data: bytes, rng: random.Random) -> Damaged:
    changed = bytearray(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = rng.choice(tar.getmembers())
    header = changed[member.offset : member.offset + _BLOCK]
    field, value = rng.choice(_HEADER_FIELDS)
    header[field : field + len(value)] = value
    if rng.random() < 0.8:
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    changed[member.offset : member.offset + _BLOCK] = header
    return Damaged(bytes(changed), "headers of a tar", f"{member.name}: {value[:12]!r} at {field}")


_SIZE, _KIND, _NAME = 124, 156, 0
_HEADER_FIELDS = [
    *((_SIZE, b"\x80" + size.to_bytes(11, "big")) for size in (0, 10**12, 2**80)),
    *((_SIZE, size) for size in (b"\xff" * 12, b"77777777777\0", b"00000000000\0", b"x" * 12)),
    *((_KIND, kind) for kind in (b"S", b"x", b"g", b"L", b"K", b"1", b"2", b"3", b"5", b"6")),
    *((_NAME, name) for name in (b"../../evil", b"/etc/passwd", b"\0" * 100, b"\xff" * 100)),
    *((_NAME, name) for name in (b"a" * 100, b"\x1b[31m.mp4", b"index.json\0")),
    (100, b"\xff" * 8), (136, b"\xff" * 12), (257, b"ustar  \0"), (345, b"p" * 155),
]  # fmt: skip


def _tar_member(data: bytes, rng: random.Random) -> Damaged:
    """Damage inside a file of a tar, whose place and size stay."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = rng.choice([each for each in tar.getmembers() if each.size])
    start, stop = member.offset_data, member.offset_data + member.size
    inner = damage(member.name, data[start:stop], rng)
    filler = b" " if member.name.endswith("json") else b"\0"
    content = inner.data[: member.size].ljust(member.size, filler)
    kind = f"{inner.kind} in {Path(member.name).suffix} of a tar"
    return Damaged(data[:start] + content + data[stop:], kind, f"{member.name}: {inner.detail}")


def _tar_of_tars(data: bytes, rng: random.Random) -> Damaged:
    header = tarfile.TarInfo("a.mp4")
    header.type = rng.choice([tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
    many = header.tobuf() * rng.choice([3000, 30_000])
    return Damaged(many + data, "headers of a tar", f"thousands of type {header.type!r}")


def _safetensors_header(data: bytes, rng: random.Random) -> Damaged:
    (size,) = struct.unpack("<Q", data[:8])
    inner = rng.choice([damaged_json, odd_json])(data[8 : 8 + size], rng)
    length = struct.pack("<Q", len(inner.data))
    return Damaged(length + inner.data + data[8 + size :], "header of safetensors", inner.detail)


def _safetensors_length(data: bytes, rng: random.Random) -> Damaged:
    size = rng.choice([0, 1, 2**31, 2**63, 2**64 - 1, len(data), 10**8])
    return Damaged(struct.pack("<Q", size) + data[8:], "header of safetensors", f"{size} bytes")


def _npy(data: bytes, rng: random.Random) -> Damaged:
    (size,) = struct.unpack("<H", data[8:10])
    shape = rng.choice(["(10**12,)", "(1000000000, 32, 32, 3)", "(-1, 32, 32, 3)", "()", "(0,)",
                        "(8, 32, 32, 4)", "(8, 99999999999999999999, 32, 3)", "None"])  # fmt: skip
    dtype = rng.choice(["|u1", "|u1", "|O", "<f8", "|S0", "<U9", "x", "[('a', '|u1')]"])
    order = rng.choice(["False", "True", "1", "None"])
    text = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}}}"
    header = text.encode().ljust(size - 1)[: size - 1] + b"\n"
    return Damaged(data[:10] + header + data[10 + size :], "header of npy", text)


def _box(data: bytes, rng: random.Random) -> Damaged:
    """A length or a number in a box of an mp4, or in what looks like one of another container."""
    boxes = list(re.finditer(rb"ftyp|moov|trak|mdia|stbl|st[a-z]{2}|avc1|avcC|mdat|[mt]khd", data))
    box = rng.choice(boxes)
    at = max(0, box.start() + rng.choice([-4, -4, 0, 4, 8, 12, 16, 20, 32]))
    value = rng.choice([0, 1, 7, 8, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**9])
    changed = data[:at] + struct.pack(">I", value) + data[at + 4 :]
    return Damaged(changed, "boxes of a video", f"{box[0].decode()} + {at - box.start()} = {value}")


def _zip(data: bytes, rng: random.Random) -> Damaged:
    """A .pth: one of its files is damaged, with its checksum made right."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        pickles = [name for name in old.namelist() if name.endswith(".pkl")]
        chosen = pickles[0] if rng.random() < 0.7 else rng.choice(old.namelist())
        detail = ""
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                content, _, detail = _pickle(content, rng)
            new.writestr(zipfile.ZipInfo(name), content)
    return Damaged(target.getvalue(), "files of a .pth", f"{chosen}: {detail}")


_OPCODES = b"0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ]^_abcdefhijlopqrstu})(.|"


def _pickle(data: bytes, rng: random.Random) -> Damaged:
    if rng.random() < 0.5:
        return damaged_bytes(data, rng)
    at = rng.randrange(len(data))
    opcode = bytes([rng.choice(_OPCODES)])
    return Damaged(data[:at] + opcode + data[at + 1 :], "pickle", f"{opcode!r} at {at}")


def _other_file(data: bytes, rng: random.Random) -> Damaged:
    other, content = rng.choice(
        [("a web page", b"<html>" * 50), ("an archive", b"PK\3\4" + bytes(100)),
         ("a pickle", b"cos\nsystem\n(S'true'\ntR."), ("a picture", b"\x89PNG\r\n" + bytes(99)),
         ("zeros", bytes(1 << 16)), ("ELF", b"\x7fELF" + bytes(200)), ("YAML", b"a: [1, 2]\n")]
    )  # fmt: skip
    return Damaged(content, "another file", other)


_TEXT: tuple[Callable[[bytes, random.Random], Damaged], ...] = (_text, _lines, _other_file)
_WAYS: dict[str, tuple[Callable[[bytes, random.Random], Damaged], ...]] = {
    ".json": (damaged_json, damaged_json, damaged_json, odd_json, _other_file),
    ".yaml": (damaged_yaml, damaged_yaml, damaged_yaml, odd_yaml, _text, _other_file),
    ".tar": (_tar_header, _tar_header, _tar_member, _tar_member, _tar_member, _tar_of_tars,
             _other_file),
    ".safetensors": (_safetensors_header, _safetensors_header, _safetensors_length, _other_file),
    ".npy": (_npy, _other_file),
    ".mp4": (_box, _box, _other_file),
    ".mkv": (damaged_bytes, _other_file),
    ".avi": (damaged_bytes, _other_file),
    ".pth": (_zip, _zip, _other_file),
    ".pt": (_zip, _zip, _other_file),
    ".txt": _TEXT,
    ".csv": _TEXT,
    ".jsonl": _TEXT,
}  # fmt: skip
