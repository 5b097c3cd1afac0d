"""Dice: random choices that are the same on every version of Python and numpy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from foretrain.hashing import seed_from

T = TypeVar("T")


class Dice:
    """Choices from a seed made of keys.

    Everything rests on `random.Random.random`, whose sequence Python keeps the same across versions; it keeps no such
    promise for `choice` and `shuffle`, and numpy keeps none for its generators.
    """

    def __init__(self, *keys: int | str) -> None:
        self._random = random.Random(seed_from(*keys)).random

    def point(self) -> float:
        """A number from 0 to below 1."""
        return self._random()

    def below(self, count: int) -> int:
        """A whole number from 0 to `count - 1`."""
        return int(self._random() * count)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def choose(self, choices: Sequence[T]) -> T:
        """One of the choices."""
        return choices[self.below(len(choices))]

    def sample(self, choices: Sequence[T], count: int) -> list[T]:
        """`count` different ones of the choices, in random order (Fisher and Yates)."""
        pool = list(choices)
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """All items in random order."""
        return self.sample(items, len(items))
