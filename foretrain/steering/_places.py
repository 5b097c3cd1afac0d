"""Where parts put something else into the stream, and in which order what they put comes."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from foretrain.hashing import seed_from


def stretch(share: Fraction, number: int) -> range:
    """The nth stretch of 1 / `share` numbers, for a share above 0; all stretches together are 0, 1, 2 ...

    Exact: it is all numbers whose product with the share begins with n.
    """
    return range(-int(-number // share), -int(-(number + 1) // share))


class Reshuffled:
    """Items in an order of their own in each pass over all of them.

    Args:
        items: how many there are.
        keys: decide the orders.
    """

    def __init__(self, items: int, *keys: int | str) -> None:
        self._items, self._keys = items, keys
        self._latest: tuple[int, Tensor] | None = None

    def __getitem__(self, number: int) -> int:
        """The item that comes in the `number`-th place (0, 1, 2 ... without end)."""
        turn, place = divmod(number, self._items)
        if self._latest is None or self._latest[0] != turn:
            generator = torch.Generator().manual_seed(seed_from(*self._keys, turn))
            self._latest = turn, torch.randperm(self._items, generator=generator)
        return int(self._latest[1][place])
