"""Content hashes: one function for bytes, one for plain data, one for files.

Names of things on disk (token caches, products, splits) are made from content and never from paths or dates, so that
the same input gives the same name on every machine.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import uuid
from pathlib import Path, PurePath
from typing import Any

_TEXT = (PurePath, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)
"""What a record may hold besides JSON, and whose text says all of it."""


def hash_bytes(data: bytes, size: int = 16) -> str:
    """BLAKE2b of `data` as `2 * size` hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def hash_data(value: Any, size: int = 16) -> str:
    """Hash of plain data (JSON values, bytes, paths, dates, decimals), independent of the order of keys.

    Raises:
        TypeError: the data holds something else, whose text would differ from one process to the next.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return hash_bytes(text.encode("utf-8", "surrogatepass"), size)


def hash_file(path: Path, size: int = 16) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.blake2b(digest_size=size)
    piece = memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as handle:
        while count := handle.readinto(piece):
            digest.update(piece[:count])
    return digest.hexdigest()


def seed_from(*keys: int | str) -> int:
    """A 63-bit seed that is a pure function of the keys: the source of every generator in foretrain."""
    data = json.dumps(keys, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, _TEXT):
        return str(value)
    raise TypeError(f"hash_data takes plain data, not {type(value).__name__}: {value!r}")
