"""Selection: documents by their scores: which are kept, and in which order they stand."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foretrain.section import Count, Number, Section
from foretrain.tokens.permutation import Permutation, scramble

Ints = NDArray[np.int64]
Scores = NDArray[np.float64]


def ranked(scores: Scores) -> Ints:
    """Numbers of the documents from the lowest score to the highest.

    Documents of one score stand as if shuffled, always in the same way: their order in a file often goes by topic.
    """
    mixed = scramble(np.arange(1, len(scores) + 1, dtype=np.uint64))
    return np.lexsort((mixed, scores)).astype(np.int64)


class Keep(Section):
    """Which documents of a domain are trained on: as many of the best as hold a share of its tokens, or a number."""

    share: Number | None = Field(None, gt=0, lt=1)
    """Share of the training tokens. Either this or `tokens`."""
    tokens: Count | None = Field(None, gt=0)
    """Number of training tokens."""
    best: Literal["lowest", "highest", "random"]
    """Which come first: those of the `lowest` or of the `highest` score; or, as a control, any (drawn by the seed)."""

    @model_validator(mode="after")
    def _one_size(self) -> Keep:
        if (self.share is None) == (self.tokens is None):
            raise ValueError("name either `share` or `tokens`")
        return self

    def chosen(self, sizes: Ints, scores: Scores | None, seed: int) -> Ints:
        """Numbers of the documents that are kept, in the order of the set.

        Documents are kept whole, until they hold what is asked for.

        Args:
            sizes: tokens of each document.
            scores: of each document; None where `random` needs none.
            seed: decides what is random.
        """
        best_first = self._best_first(len(sizes), scores, seed)
        ends = np.cumsum(sizes[best_first])
        wanted = self.tokens if self.tokens is not None else (self.share or 0.0) * int(ends[-1])
        count = int(np.searchsorted(ends, wanted, "left")) + 1
        return np.sort(best_first[:count])

    def _best_first(self, count: int, scores: Scores | None, seed: int) -> Ints:
        if self.best == "random":
            return Permutation(count, seed)(np.arange(count, dtype=np.int64))
        assert scores is not None
        order = ranked(scores)
        return order if self.best == "lowest" else order[::-1]
