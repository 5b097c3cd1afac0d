"""Permutation: a shuffle of any size that needs no memory: each place is computed, none is stored."""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from foretrain.hashing import seed_from

ROUNDS = 12
"""Rounds of mixing. Six make a good shuffle of many items; with these, each of the 720 of six is equally likely."""

_ONE, _TWO = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


def scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 well-mixed bits from each value (the finalizer of SplitMix64); a bijection."""
    values = (values ^ (values >> _S30)) * _ONE
    values = (values ^ (values >> _S27)) * _TWO
    return values ^ (values >> _S31)


class Permutation:
    """A bijection of 0 .. size - 1 chosen by `key`; vectorised, and independent of the order of calls.

    A Feistel network on numbers `left * b + right` with `a * b` just above `size` (left < a, right < b): each round
    adds a hash of one half to the other, which can be undone, so the whole is a bijection of 0 .. a * b - 1. Numbers
    that fall outside are mapped again until they fall inside (cycle walking), which keeps it one on 0 .. size - 1.
    """

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        self._a = np.uint64(isqrt(size - 1) + 1 if size > 1 else 1)
        self._b = np.uint64(-(-size // int(self._a)))
        self._keys = [np.uint64(seed_from(key, round_) * 2) for round_ in range(ROUNDS)]

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The item at each place; places from 0 to `size - 1`."""
        values = self._mix(places.astype(np.uint64))
        while (outside := values >= np.uint64(self.size)).any():
            values[outside] = self._mix(values[outside])
        return values.astype(np.int64)

    def _mix(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = np.divmod(values, self._b)
        for number, key in enumerate(self._keys):
            if number % 2:
                left = (left + scramble(right + key) % self._a) % self._a
            else:
                right = (right + scramble(left + key) % self._b) % self._b
        return left * self._b + right
