"""Arranged: some documents of a token set, in an order of their own, as a set of its own. Nothing is copied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from foretrain.hashing import hash_bytes, hash_data
from foretrain.tokens.ring import Ints, Ring
from foretrain.tokens.shards import TokenSet


class Arranged(Ring):
    """A view of a token set: the ring of the documents with these numbers, one after the other.

    Selecting documents and sorting them are both this. It keeps three numbers for each of its documents in memory.

    Args:
        base: whose documents these are.
        documents: their numbers, in the order in which they stand here.
    """

    def __init__(self, base: TokenSet, documents: Ints) -> None:
        self.base = base
        ends, byte_ends = base.document_ends()
        sizes = np.diff(ends, prepend=0)
        self._byte_ends = np.cumsum(np.diff(byte_ends, prepend=0)[documents])
        self._begins = (ends - sizes)[documents]
        self._ends = np.cumsum(sizes[documents])
        self.tokens, self.documents = int(self._ends[-1]), len(documents)
        self.bytes = int(self._byte_ends[-1])
        self.hash = hash_data([base.hash, hash_bytes(documents.astype("<i8").tobytes())])

    def __repr__(self) -> str:
        return f"Arranged({self.documents} of {self.base.documents} documents, {self.tokens} tokens)"

    def _parts(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """A stretch of the ring as (place in the stretch, place in the base, tokens), one for each document touched."""
        done = 0
        while done < length:
            place = (start + done) % self.tokens
            number = int(np.searchsorted(self._ends, place, "right"))
            before = int(self._ends[number - 1]) if number else 0
            count = min(length - done, int(self._ends[number]) - place)
            yield done, int(self._begins[number]) + place - before, count
            done += count

    def gather(self, starts: Ints, length: int) -> Ints:
        out = np.empty((len(starts), length), np.int64)
        for row, start in enumerate(starts.tolist()):
            for done, place, count in self._parts(start, length):
                out[row, done : done + count] = self.base.read(place, count)
        return out

    def segments(self, starts: Ints, length: int) -> NDArray[np.int32]:
        begun = self._begun(starts[:, None] + np.arange(length, dtype=np.int64))
        return (begun - begun[:, :1]).astype(np.int32)

    def _begun(self, places: Ints) -> Ints:
        """How many documents ended before each place, counted on around the ring."""
        rounds, places = np.divmod(places, self.tokens)
        return rounds * self.documents + np.searchsorted(self._ends, places, "right")

    def document_ends(self) -> tuple[Ints, Ints]:
        return self._ends, self._byte_ends

    def given(self, starts: Ints, length: int) -> NDArray[np.bool_] | None:
        out = np.zeros((len(starts), length), np.bool_)
        for row, start in enumerate(starts.tolist()):
            for done, place, count in self._parts(start, length):
                found = self.base.given(np.array([place]), count)
                if found is None:
                    return None
                out[row, done : done + count] = found[0]
        return out

    def names(self, start: int, length: int) -> list[str]:
        return [self.base.names(place, 1)[0] for _, place, _ in self._parts(start, length)]
