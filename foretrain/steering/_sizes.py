"""How much text each domain has to train on: what static rules for mixtures go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from foretrain.tokens.stream import Stream

Unit = Literal["tokens", "bytes"]
"""What sizes are told in."""


@dataclass(frozen=True)
class Size:
    """What a domain has to train on: its train split, or the part of it that `unique` leaves."""

    tokens: float
    bytes: float

    def amount(self, unit: Unit) -> float:
        """The size in a unit."""
        return self.tokens if unit == "tokens" else self.bytes

    def tokens_per(self, unit: Unit) -> float:
        """Tokens that a unit of the domain's text takes: its fertility, where the unit is bytes."""
        return 1.0 if unit == "tokens" else self.tokens / self.bytes


def sizes(stream: Stream) -> dict[str, Size]:
    """The size of every domain that has text to train on."""
    found: dict[str, Size] = {}
    for name, tokens in stream.sets.items():
        used = stream.unique[name] * stream.stride if name in stream.unique else tokens.tokens
        found[name] = Size(float(used), tokens.bytes * used / tokens.tokens)
    return found
