"""Shard: the file format of tokenized documents, its writer and its reader.

    header     4096 bytes: magic, format version, checksum, then JSON: dtype, counts, hash, place of each section
    tokens     uint16 or uint32, little-endian, document after document
    ends       int64 per document: where its tokens end
    bytes      int64 per document: UTF-8 bytes of text up to and with it
    names      int64 per document: where its name ends in `text`
    checks     uint32 per piece of 64 KiB of tokens: its CRC-32
    text       names (source ids) of the documents, UTF-8

Opening a shard checks its header, its size and its index (everything behind the tokens). Tokens are checked piece by
piece, each once, just before they are first read: opening many gigabytes takes no time, and no damaged token is
trained on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretrain import faults
from foretrain.errors import CorruptFile
from foretrain.files import failed_write, sync_folder

FORMAT = 1
"""Version of the file format; part of every cache name."""
PIECE = 1 << 16
"""Bytes of tokens under one checksum."""
RELEASE = 1 << 25
"""Bytes that all open shards together may map into memory before they give them back."""

_MAGIC = b"foretrain shard\n"
_HEADER = 4096
_PREFIX = struct.Struct("<16sIII")
_COLUMNS = ("ends", "bytes", "names")


class ShardWriter:
    """Writes one shard, document by document, in constant memory; nothing bears its name before `finish`."""

    def __init__(self, path: Path, dtype: type[np.unsignedinteger[Any]]) -> None:
        self.path = path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.tokens = self.documents = self.bytes = 0
        self._names = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._buffer = bytearray()
        self._digest = hashlib.blake2b(digest_size=16)
        self._spools: dict[str, Any] = {}
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "wb")  # noqa: SIM115 (closed by finish or abort)
            self._file.write(b"\0" * _HEADER)
            for name in (*_COLUMNS, "checks", "text"):
                self._spools[name] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def append(self, ids: ArrayLike, text_bytes: int, name: str) -> None:
        """Add a document: its ids (at least one), the UTF-8 bytes of its text, and its name."""
        tokens = np.ascontiguousarray(ids, self.dtype)
        label = name.encode("utf-8", "replace")
        self.tokens += len(tokens)
        self.documents += 1
        self.bytes += text_bytes
        self._names += len(label)
        with _writing(self.path):
            for column, value in zip(_COLUMNS, (self.tokens, self.bytes, self._names), strict=True):
                self._spools[column].write(struct.pack("<q", value))
            self._spools["text"].write(label)
            self._buffer += tokens.data.cast("B")
            while len(self._buffer) >= PIECE:
                self._write_piece(bytes(self._buffer[:PIECE]))
                del self._buffer[:PIECE]

    def _write_piece(self, piece: bytes) -> None:
        faults.reach("write")
        self._file.write(piece)
        self._digest.update(piece)
        self._spools["checks"].write(struct.pack("<I", zlib.crc32(piece)))

    def finish(self) -> None:
        """Write index and header, flush, and give the file its name."""
        with _writing(self.path):
            if self._buffer:
                self._write_piece(bytes(self._buffer))
            sections = {"tokens": [_HEADER, self.tokens * self.dtype.itemsize]}
            index = self._file.tell()
            check = self._pad(0)
            for name, spool in self._spools.items():
                sections[name] = [self._file.tell(), spool.tell()]
                spool.seek(0)
                while piece := spool.read(1 << 20):
                    self._file.write(piece)
                    check = zlib.crc32(piece, check)
            self._digest.update(struct.pack("<qqI", self.tokens, self.documents, check))
            facts = {
                "dtype": self.dtype.name,
                "tokens": self.tokens,
                "documents": self.documents,
                "bytes": self.bytes,
                "hash": self._digest.hexdigest(),
                "size": self._file.tell(),
                "index": [index, check],
                "sections": sections,
            }
            self._file.seek(0)
            self._file.write(_header(facts))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._close()
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)

    def _pad(self, check: int) -> int:
        padding = b"\0" * (-self._file.tell() % 8)
        self._file.write(padding)
        return zlib.crc32(padding, check)

    def abort(self) -> None:
        """Leave nothing behind; does nothing after `finish`."""
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        for handle in (self._file, *self._spools.values()):
            handle.close()


class Shard:
    """Reads one shard: tokens mapped into memory and checked on first touch, index checked on opening.

    Pages that were read are given back every so often, so that resident memory depends neither on the size of the
    corpus nor on the number of its shards.

    Raises:
        CorruptFile: when opened or read, if the file is not what was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as handle:
                facts = self._check(handle)
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CorruptFile(f"{path} cannot be read: {error.strerror or error}. {self._remedy()}") from error
        self.dtype = np.dtype(facts["dtype"]).newbyteorder("<")
        self.tokens, self.documents, self.bytes = (int(facts[name]) for name in ("tokens", "documents", "bytes"))
        self.hash = str(facts["hash"])
        self._sections: dict[str, list[int]] = facts["sections"]
        self._data = self._section("tokens", self.dtype)
        self.ends, self.byte_ends, self._name_ends = (self._section(name, np.dtype("<i8")) for name in _COLUMNS)
        self._checks = self._section("checks", np.dtype("<u4"))
        self._verified = np.zeros(len(self._checks), bool)
        _residency.shards.add(self)

    def _check(self, handle: io.BufferedReader) -> dict[str, Any]:
        head = handle.read(_HEADER)
        if len(head) < _HEADER:
            raise self._corrupt("it is cut short")
        magic, version, length, check = _PREFIX.unpack_from(head)
        if magic != _MAGIC:
            raise self._corrupt("it does not begin like a shard")
        if version != FORMAT:
            raise self._corrupt(f"its format version is {version}, and this foretrain reads {FORMAT}")
        text = head[_PREFIX.size : _PREFIX.size + length]
        if zlib.crc32(text) != check:
            raise self._corrupt("its header does not match its checksum")
        facts: dict[str, Any] = json.loads(text)
        size = os.fstat(handle.fileno()).st_size
        if size != facts["size"]:
            raise self._corrupt(f"it has {size} bytes where {facts['size']} were written")
        start, expected = facts["index"]
        handle.seek(start)
        found = 0
        while piece := handle.read(1 << 20):
            found = zlib.crc32(piece, found)
        if found != expected:
            raise self._corrupt("its document index does not match its checksum")
        return facts

    def _section(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        start, size = self._sections[name]
        return np.frombuffer(self._map, dtype, size // dtype.itemsize, start)

    def _corrupt(self, what: str) -> CorruptFile:
        return CorruptFile(f"The shard {self.path} is damaged: {what}. {self._remedy()}")

    def _remedy(self) -> str:
        return f"Delete the folder {self.path.parent}; the next run makes it again from the corpus."

    def read_into(self, out: NDArray[Any], start: int) -> None:
        """Fill `out` with the tokens from `start` on; raises CorruptFile if they are not what was written."""
        size = self.dtype.itemsize
        stop = start + len(out)
        for number in range(start * size // PIECE, -(-stop * size // PIECE)):
            if not self._verified[number]:
                self._verify(number)
        out[:] = self._data[start:stop]
        self.touched(len(out) * size)

    def _verify(self, number: int) -> None:
        first = number * PIECE
        begin, size = self._sections["tokens"]
        with memoryview(self._map) as view:
            found = zlib.crc32(view[begin + first : begin + min(first + PIECE, size)])
        if found != self._checks[number]:
            raise self._corrupt(f"tokens {first // self.dtype.itemsize} and on do not match their checksum")
        self._verified[number] = True
        self.touched(PIECE)

    def touched(self, size: int) -> None:
        """Count `size` bytes of this shard as mapped (the kernel maps 64 KiB around a touch)."""
        _residency.add(size + (1 << 16))

    def release(self) -> None:
        """Give back the memory that holds pages of this file; they are read again when they are needed."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def name(self, document: int) -> str:
        """The name of a document, by its number in this shard."""
        start = int(self._name_ends[document - 1]) if document else 0
        stop = int(self._name_ends[document])
        begin, _ = self._sections["text"]
        return bytes(self._map[begin + start : begin + stop]).decode("utf-8", "replace")


class _Residency:
    """How much of their files the open shards of this process may have mapped since they last gave memory back."""

    def __init__(self) -> None:
        self.shards: weakref.WeakSet[Shard] = weakref.WeakSet()
        self.mapped = 0

    def add(self, size: int) -> None:
        self.mapped += size
        if self.mapped > RELEASE:
            self.mapped = 0
            for shard in list(self.shards):
                shard.release()


_residency = _Residency()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tells a failed write (a full disk) in words."""
    try:
        yield
    except OSError as error:
        raise failed_write(f"The shard {path.name}", path.parent, error) from error


def _header(facts: dict[str, Any]) -> bytes:
    text = json.dumps(facts, sort_keys=True).encode()
    head = _PREFIX.pack(_MAGIC, FORMAT, len(text), zlib.crc32(text)) + text
    return head.ljust(_HEADER, b"\0")
