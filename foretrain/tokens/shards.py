"""TokenSet: the tokens of one domain and split, over the shards that hold them; and what writes them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foretrain.errors import CorruptFile
from foretrain.hashing import hash_bytes, hash_data
from foretrain.tokens.ring import Ring
from foretrain.tokens.shard_file import Shard, ShardWriter

SHARD_TOKENS = 1 << 30
"""Tokens after which a new shard is begun (2 or 4 GiB)."""

Ints = NDArray[np.int64]


def _load_given(path: Path, documents: int) -> Ints:
    try:
        given: Ints = np.load(path, allow_pickle=False).astype(np.int64)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path) from error
    if given.shape != (documents,) or (given < 0).any():
        raise _damaged(path)
    return given


def _damaged(path: Path) -> CorruptFile:
    return CorruptFile(f"{path} is damaged. Delete its folder; the next run makes it again from the corpus.")


class SetWriter:
    """Writes the documents of one token set into shards `FOLDER/NAME-00000.shard` and on; use it in a `with`.

    Args:
        folder: where the shards go.
        name: how their names begin.
        vocabulary: number of ids; up to 65536 of them take 2 bytes each, more take 4.
        shard_tokens: tokens after which a new shard is begun (a document is never cut).
    """

    def __init__(self, folder: Path, name: str, vocabulary: int, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder, self.name, self.shard_tokens = folder, name, shard_tokens
        self.dtype: type[np.unsignedinteger[Any]] = np.uint16 if vocabulary <= 1 << 16 else np.uint32
        self.paths: list[Path] = []
        self.tokens = self.documents = self.bytes = 0
        self._writer: ShardWriter | None = None

    def append(self, ids: ArrayLike, text_bytes: int, name: str) -> None:
        """Add a document: its ids (at least one), the UTF-8 bytes of its text, and its name (source id)."""
        if self._writer is None:
            self._writer = ShardWriter(self.folder / f"{self.name}-{len(self.paths):05d}.shard", self.dtype)
        self._writer.append(ids, text_bytes, name)
        if self._writer.tokens >= self.shard_tokens:
            self.finish()

    def finish(self) -> list[Path]:
        """Close the shard that is being written; returns the paths of all."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.finish()
            finally:
                writer.abort()
            self.paths.append(writer.path)
            self.tokens += writer.tokens
            self.documents += writer.documents
            self.bytes += writer.bytes
        return self.paths

    def __enter__(self) -> SetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        self.abort()

    def abort(self) -> None:
        """Leave no half of a shard behind; does nothing after `finish`."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None


class TokenSet(Ring):
    """The tokens of one domain and split, read from memory-mapped shards.

    The shards' documents stand one after the other, and after the last comes the first again: a token set is a ring,
    so that any place can begin a window. Every document ends with the end-of-document id.

    Attributes:
        paths: its shards, in order.
        tokens, documents: how many there are.
        bytes: UTF-8 bytes of the documents' text.
        hash: of its content.

    Args:
        paths: its shards, in order.
        given: the file with the number of tokens of each document that are given and not to be learned.

    Raises:
        CorruptFile: when opened or read, if a shard is not what was written; names it and what to do.
    """

    def __init__(self, paths: Sequence[Path], given: Path | None = None) -> None:
        self.paths = list(paths)
        self._shards = [Shard(path) for path in paths]
        self._firsts = [0, *accumulate(shard.tokens for shard in self._shards)]
        self.tokens = self._firsts.pop()
        self.documents = sum(shard.documents for shard in self._shards)
        self.bytes = sum(shard.bytes for shard in self._shards)
        hashes = [shard.hash for shard in self._shards]
        self._given = None if given is None else _load_given(given, self.documents)
        self.hash = hash_data(hashes if self._given is None else [*hashes, hash_bytes(self._given.tobytes())])

    def __repr__(self) -> str:
        return f"TokenSet({self.documents} documents, {self.tokens} tokens, {len(self.paths)} shards)"

    def _parts(self, start: int, length: int) -> Iterator[tuple[int, Shard, int, int]]:
        """A stretch of the ring as (place in the stretch, shard, place in the shard, tokens)."""
        done = 0
        while done < length:
            place = (start + done) % self.tokens
            number = bisect_right(self._firsts, place) - 1
            shard, local = self._shards[number], place - self._firsts[number]
            count = min(length - done, shard.tokens - local)
            yield done, shard, local, count
            done += count

    def gather(self, starts: Ints, length: int) -> Ints:
        """Windows of `length` tokens from each start, int64 [starts, length]."""
        out = np.empty((len(starts), length), np.int64)
        for row, start in enumerate(starts.tolist()):
            for done, shard, local, count in self._parts(start, length):
                shard.read_into(out[row, done : done + count], local)
        return out

    def segments(self, starts: Ints, length: int) -> NDArray[np.int32]:
        """Number of the document within its window of every token, int32 [starts, length]; each row starts at 0."""
        marks = np.zeros((len(starts), length), np.int32)
        for row, start in enumerate(starts.tolist()):
            for done, shard, local, count in self._parts(start, length):
                first, last = np.searchsorted(shard.ends, (local, local + count), "right")
                begins = shard.ends[first:last] - local + done
                marks[row, begins[begins < length]] = 1
                shard.touched(0)
        return np.cumsum(marks, axis=1, dtype=np.int32)

    def document_ends(self) -> tuple[Ints, Ints]:
        """Where each document ends in the ring, and the bytes of text up to and with it; int64 [documents] both."""
        before = np.cumsum([0, *(shard.bytes for shard in self._shards[:-1])])
        ends = [shard.ends + first for shard, first in zip(self._shards, self._firsts, strict=True)]
        byte_ends = [shard.byte_ends + first for shard, first in zip(self._shards, before, strict=True)]
        return np.concatenate(ends).astype(np.int64), np.concatenate(byte_ends).astype(np.int64)

    def given(self, starts: Ints, length: int) -> NDArray[np.bool_] | None:
        """Which tokens are given and not to be learned, bool [starts, length]; None where none ever is."""
        if self._given is None:
            return None
        ends = self._ends
        places = (starts[:, None] + np.arange(length)) % self.tokens
        numbers = np.searchsorted(ends, places, "right")
        begins = np.where(numbers > 0, ends[numbers - 1], 0)
        return places - begins < self._given[numbers]

    @cached_property
    def _ends(self) -> Ints:
        return self.document_ends()[0]

    def names(self, start: int, length: int) -> list[str]:
        """Names (source ids) of the documents that a stretch of tokens touches, in order."""
        found: list[str] = []
        for _, shard, local, count in self._parts(start, length):
            first, last = np.searchsorted(shard.ends, (local, local + count - 1), "right")
            found += [shard.name(document) for document in range(int(first), int(last) + 1)]
        return found
