"""Go through a domain in a new random order in each epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from foretrain.parts import Facts
from foretrain.tokens.order import Order, ShuffledWindows
from foretrain.tokens.orders.base import DocumentOrder
from foretrain.tokens.redrawn import Redrawn, RedrawnWindows

if TYPE_CHECKING:
    from foretrain.tokens.readable import Readable


class Shuffled(DocumentOrder):
    """Every window once per epoch, in an order that is new in each epoch, cut anew in each."""

    kind: Literal["shuffled"] = "shuffled"
    facts: ClassVar[Facts] = Facts(answers="in which order does text come? any, anew in each epoch")
    limits: ClassVar[bool] = True

    def identity(self, tokens: str) -> str:
        """The hash of the set: this order is the usual one."""
        return tokens

    def windows(self, tokens: Readable, stride: int, key: int) -> Order:
        if isinstance(tokens, Redrawn):
            return RedrawnWindows(tokens, stride, key)
        return ShuffledWindows(tokens, stride, key)
