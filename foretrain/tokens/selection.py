"""Selection: documents by their scores: which are kept, and in which order they stand."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from foretrain.hashing import seed_from
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
    """Which documents of a domain are trained on: as many of the best as hold a share of its tokens, or a number.

    With a `temperature` they are drawn instead, without replacement, each next one with a probability in proportion to
    exp(score / temperature) (its negative, where the lowest are best): documents come in the order of their score plus
    a Gumbel variate, and the first are kept. Scores count in their standard deviations over the domain.
    """

    share: Number | None = Field(None, gt=0, lt=1)
    """Share of the training tokens. Either this or `tokens`."""
    tokens: Count | None = Field(None, gt=0)
    """Number of training tokens."""
    best: Literal["lowest", "highest", "random"]
    """Which come first: those of the `lowest` or of the `highest` score; or, as a control, any (drawn by the seed)."""

    temperature: Number | None = Field(None, gt=0)
    """Draw documents by their scores: the lower, the more surely the best; unset: exactly the best."""
    redraw: bool = False
    """Draw them anew for each pass, so that a run sees more of them; needs a `temperature`, or `random`."""

    @model_validator(mode="after")
    def _one_size(self) -> Keep:
        if (self.share is None) == (self.tokens is None):
            raise ValueError("name either `share` or `tokens`")
        if self.best == "random" and self.temperature is not None:
            raise ValueError("`temperature` draws by score, and `random` goes by none; leave one out")
        if self.redraw and self.temperature is None and self.best != "random":
            raise ValueError("`redraw` needs a `temperature`, since the best documents are the same ones in each pass")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is newer than the first selections and not used, so that their hashes stay the same."""
        plain: dict[str, Any] = handler(self)
        usual = {"temperature": None, "redraw": False}
        return {key: value for key, value in plain.items() if key not in usual or value != usual[key]}

    def wanted(self, total: int) -> float:
        """How many of `total` tokens are asked for."""
        return self.tokens if self.tokens is not None else (self.share or 0.0) * total

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
        count = int(np.searchsorted(ends, self.wanted(int(ends[-1])), "left")) + 1
        return np.sort(best_first[:count])

    def _best_first(self, count: int, scores: Scores | None, seed: int) -> Ints:
        if self.best == "random":
            return Permutation(count, seed)(np.arange(count, dtype=np.int64))
        assert scores is not None
        if self.temperature is not None:
            scores = scores / (float(scores.std()) or 1.0) / self.temperature
            scores = scores + (1 if self.best == "highest" else -1) * _gumbel(count, seed)
        order = ranked(scores)
        return order if self.best == "lowest" else order[::-1]


def _gumbel(count: int, seed: int) -> Scores:
    """Standard Gumbel variates, one for each number: a function of seed and number alone."""
    bits = scramble(np.arange(count, dtype=np.uint64) + np.uint64(seed_from("gumbel", seed)))
    return -np.log(-np.log(((bits >> np.uint64(11)) + 0.5) * 2.0**-53))
