"""Go through a domain in which documents are repeated, each as often as a score says."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.tokens.order import Order, ShuffledWindows
from foretrain.tokens.orders.base import DocumentOrder
from foretrain.tokens.permutation import Permutation, scramble
from foretrain.tokens.selection import Ints, Scores

if TYPE_CHECKING:
    from foretrain.tokens.readable import Readable

_MOST = 1000


class Repeated(DocumentOrder):
    """Each document as often as its score says, copies far from each other, in windows shuffled anew in each epoch.

    A score of 3 is three copies, of 2.25 two and, for one document in four, a third; 0 leaves a document out. An epoch
    goes through all copies. They lie in one random order, so that no window holds two of one text but by chance;
    nothing is copied on disk.
    """

    kind: Literal["repeated"] = "repeated"
    facts: ClassVar[Facts] = Facts(
        paper="FineWeb2: One Pipeline to Scale Them All — Adapting Pre-Training Data Processing to Every Language",
        arxiv="2506.20920",
        year=2025,
        answers="in which order does text come? any, some documents more often than others",
    )
    by_score: ClassVar[bool] = True
    repeats: ClassVar[bool] = True

    seed: int = Field(0, ge=0)
    """Decides where copies lie, and who gets the one more of a fraction."""

    def arranged(self, scores: Scores) -> Ints | None:
        if scores.min() < 0 or scores.max() > _MOST:
            worst = float(scores.min() if scores.min() < 0 else scores.max())
            raise RequestError(
                f"order: 'repeated' takes scores as numbers of copies, from 0 to {_MOST}, and one is {worst:g}. Name "
                "the score that says how often a document is repeated, such as {kind: field, field: repeats}."
            )
        numbers = np.arange(len(scores), dtype=np.uint64)
        chance = scramble(numbers ^ np.uint64(seed_from("repeated", self.seed))).astype(np.float64) / 2.0**64
        copies = np.floor(scores + np.minimum(chance, 1 - 2.0**-53)).astype(np.int64)
        places = np.repeat(numbers.astype(np.int64), copies)
        if not len(places):
            raise RequestError("order: 'repeated' leaves no document, since all scores are below 1.")
        return places[Permutation(len(places), seed_from("repeated", self.seed, "place"))(np.arange(len(places)))]

    def windows(self, tokens: Readable, stride: int, key: int) -> Order:
        return ShuffledWindows(tokens, stride, key)
