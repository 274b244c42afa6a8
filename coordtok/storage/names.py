"""File names. They are untrusted: a key must never be taken for a path or a command."""

import re
from hashlib import blake2b

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_LONGEST = 64
"""A tar's plain header holds 100 characters, extensions included."""


def safe_name(key: str) -> str:
    """`key` itself where it is letters, digits, '-' and '_' and not long; else a readable part of
    it with a hash, unlike that of any other key."""
    readable = _UNSAFE.sub("-", key).strip("-")[:_LONGEST]
    if key and readable == key:
        return key
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{readable[: _LONGEST - 16] or 'sample'}-{digest}"


def short_hash(text: str) -> str:
    """80 bits of a hash, in hexadecimal: enough to tell a dataset's files apart."""
    return blake2b(text.encode(), digest_size=10).hexdigest()


def is_plain(name: str) -> bool:
    """Whether a file name is letters, digits, '.', '_' and '-' alone, the first a letter or digit:
    it names no folder, no option and no hidden file."""
    return _PLAIN.fullmatch(name) is not None
