"""Go through a domain by the score of its documents: a curriculum."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.tokens.order import Order
from foretrain.tokens.orders.base import DocumentOrder
from foretrain.tokens.permutation import Permutation
from foretrain.tokens.selection import Ints, Scores, ranked

if TYPE_CHECKING:
    from foretrain.tokens.readable import Readable


class Sorted(DocumentOrder):
    """Documents by their score, from the lowest to the highest; each epoch starts over.

    The sorted text is cut into windows, and these into `buckets` of equal size, which come one after the other; inside
    a bucket windows come in random order, new in each epoch. So neighbours in score are mixed, and what else goes with
    the score (the topic, a long document) does not come in one piece. A run that reads less than an epoch sees the
    beginning of the order alone.
    """

    kind: Literal["sorted"] = "sorted"
    facts: ClassVar[Facts] = Facts(
        paper="How Learning Rate Decay Wastes Your Best Data in Curriculum-Based LLM Pretraining",
        arxiv="2511.18903",
        year=2025,
        answers="in which order does text come? by a score of its documents",
        overhead="what scoring costs, once",
    )
    by_score: ClassVar[bool] = True

    descending: bool = False
    """From the highest score to the lowest."""
    buckets: Count = Field(100, gt=0)
    """Stretches of the order that are shuffled each by itself: more of them follow the score more closely, 1 shuffles
    all."""

    def arranged(self, scores: Scores) -> Ints | None:
        order = ranked(scores)
        return order[::-1].copy() if self.descending else order

    def windows(self, tokens: Readable, stride: int, key: int) -> Order:
        return BucketedWindows(tokens, stride, key, self.buckets)


class BucketedWindows:
    """Every window once per epoch, bucket after bucket, shuffled inside each."""

    def __init__(self, tokens: Readable, stride: int, key: int, buckets: int) -> None:
        self.windows = tokens.tokens // stride
        self._stride, self._key, self._buckets = stride, key, min(buckets, self.windows)
        self._latest: tuple[tuple[int, int], Permutation] | None = None

    def _first(self, bucket: int) -> int:
        """The first place of a bucket: the least one of which `place * buckets // windows` is its number."""
        return -(-bucket * self.windows // self._buckets)

    def _shuffle(self, epoch: int, bucket: int) -> Permutation:
        if self._latest is None or self._latest[0] != (epoch, bucket):
            size = self._first(bucket + 1) - self._first(bucket)
            self._latest = (epoch, bucket), Permutation(size, seed_from(self._key, epoch, bucket))
        return self._latest[1]

    def starts(self, counters: Ints) -> Ints:
        epochs, places = np.divmod(counters, self.windows)
        buckets = places * self._buckets // self.windows
        for epoch, bucket in sorted(set(zip(epochs.tolist(), buckets.tolist(), strict=True))):
            chosen, first = (epochs == epoch) & (buckets == bucket), self._first(bucket)
            places[chosen] = first + self._shuffle(epoch, bucket)(places[chosen] - first)
        return places * self._stride
