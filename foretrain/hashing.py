"""Content hashes: one function for bytes, one for plain data, one for files.

Names of things on disk (token caches, products, splits) are made from content and never from paths or dates, so that
the same input gives the same name on every machine.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_bytes(data: bytes, size: int = 16) -> str:
    """BLAKE2b of `data` as `2 * size` hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def hash_data(value: Any, size: int = 16) -> str:
    """Hash of plain data (dicts, lists, numbers, strings), independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hash_bytes(text.encode(), size)


def hash_file(path: Path, size: int = 16) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.blake2b(digest_size=size)
    with open(path, "rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def seed_from(*keys: int | str) -> int:
    """A 63-bit seed that is a pure function of the keys: the source of every generator in foretrain."""
    data = json.dumps(keys, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1
