"""Redrawn: some documents of a token set, others in each pass, as an endless line of passes. Nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from foretrain.hashing import hash_bytes, hash_data, seed_from
from foretrain.tokens.arranged import Arranged
from foretrain.tokens.permutation import Permutation
from foretrain.tokens.ring import Ints, Ring
from foretrain.tokens.selection import Keep, Scores
from foretrain.tokens.shards import TokenSet

_HELD = 3


class Redrawn(Ring):
    """A selection that is drawn anew for each pass; which documents a pass has is a function of its number alone.

    Each pass has `tokens` places, as many as are asked for: place p is place p % tokens of pass p // tokens. (Documents
    are kept whole, so a draw holds up to a document more: windows reach into it.) What is said of documents and bytes
    is of the first pass.

    Args:
        base: whose documents these are.
        keep: how they are drawn.
        sizes: tokens of each document.
        scores: of each document; None where none are needed.
        key: decides what is drawn.
    """

    def __init__(self, base: TokenSet, keep: Keep, sizes: Ints, scores: Scores | None, key: int) -> None:
        def drawn(number: int) -> Arranged:
            return Arranged(base, keep.chosen(sizes, scores, seed_from(key, "pass", number)))

        self.base, self.drawn = base, lru_cache(_HELD)(drawn)
        first = self.drawn(0)
        self.tokens, self.documents = max(1, int(keep.wanted(base.tokens))), first.documents
        self.bytes = round(first.bytes * self.tokens / first.tokens)
        scored = "" if scores is None else hash_bytes(scores.tobytes())
        self.hash = hash_data([base.hash, "redrawn", keep.model_dump(mode="json"), scored, key])

    def __repr__(self) -> str:
        return f"Redrawn({self.documents} of {self.base.documents} documents in the first pass, {self.tokens} tokens)"

    def _by_pass(self, starts: Ints, length: int, read: Callable[[Arranged, Ints], NDArray], kind: type) -> NDArray:
        numbers = np.maximum(starts // self.tokens, 0)
        out: NDArray = np.empty((len(starts), length), kind)
        for number in np.unique(numbers).tolist():
            rows = numbers == number
            out[rows] = read(self.drawn(number), starts[rows] - number * self.tokens)
        return out

    def gather(self, starts: Ints, length: int) -> Ints:
        return self._by_pass(starts, length, lambda drawn, places: drawn.gather(places, length), np.int64)

    def segments(self, starts: Ints, length: int) -> NDArray[np.int32]:
        return self._by_pass(starts, length, lambda drawn, places: drawn.segments(places, length), np.int32)

    def names(self, start: int, length: int) -> list[str]:
        number = max(start // self.tokens, 0)
        return self.drawn(number).names(start - number * self.tokens, length)


class RedrawnWindows:
    """Every window of a pass once, in random order; then those of the next pass."""

    def __init__(self, tokens: Redrawn, stride: int, key: int) -> None:
        self.windows = tokens.tokens // stride
        self._tokens, self._stride, self._key = tokens.tokens, stride, key

    def starts(self, counters: Ints) -> Ints:
        passes, places = np.divmod(counters, self.windows)
        starts = np.empty_like(counters)
        for number in np.unique(passes).tolist():
            # As many tokens as are no whole window are left out, others in each pass.
            shift = seed_from(self._key, number, "shift") % (self._tokens - self.windows * self._stride + 1)
            chosen = passes == number
            place = Permutation(self.windows, seed_from(self._key, number))(places[chosen])
            starts[chosen] = number * self._tokens + shift + place * self._stride
        return starts
