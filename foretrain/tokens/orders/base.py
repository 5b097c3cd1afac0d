"""DocumentOrder: in which order a domain's documents, and the windows cut from them, are trained on."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from foretrain.hashing import hash_data
from foretrain.parts import Part
from foretrain.tokens.order import Order
from foretrain.tokens.selection import Ints, Scores

if TYPE_CHECKING:
    from foretrain.tokens.readable import Readable


class DocumentOrder(Part):
    """An order of a domain: how its documents lie one after the other, and in which order windows of them come.

    Both are pure functions of what is given, so that a resumed run needs no state of them. One pass over the windows is
    an epoch.
    """

    axis: ClassVar[str] = "order"
    limits: ClassVar[bool] = False
    """Whether a limit of distinct tokens (`unique`), which draws windows, leaves it the order that it is."""
    covers: ClassVar[bool] = True
    """Whether an epoch reads every token but a rest that is shorter than a window."""
    aligned: ClassVar[bool] = False
    """Whether each window begins with a document."""
    by_score: ClassVar[bool] = False
    """Whether it needs a score of each document."""
    repeats: ClassVar[bool] = False
    """Whether a document may stand in more places than one, or in none."""

    def arranged(self, scores: Scores) -> Ints | None:
        """The places of the documents with these scores, first to last; None where they lie as they are."""
        return None

    def identity(self, tokens: str) -> str:
        """The hash of a set (given its own) as it is read in this order: where it is the same, so is what was seen."""
        return hash_data({"tokens": tokens, "order": self.model_dump(mode="json")})

    @abstractmethod
    def windows(self, tokens: Readable, stride: int, key: int) -> Order:
        """The order of the windows of a set, which bring `stride` new tokens each; `key` decides what is random."""
