"""Intervals over items: how far a figure could be off because the items are a sample.

All are two-sided intervals for what the figure would be on endless items of the same kind. Items count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from foretrain.tasks.base import Measured

LEVEL = 0.95
"""Share of such intervals that hold the true value."""


def wilson(successes: int, items: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a proportion; unlike the textbook one it is right near 0 and 1, and inside them."""
    z = float(stats.norm.ppf(0.5 + level / 2))
    share = successes / items
    centre = (share + z * z / (2 * items)) / (1 + z * z / items)
    half = z / (1 + z * z / items) * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    # At 0 and at all the ends are exactly 0 and 1; rounding must not put them elsewhere.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == items else min(1.0, centre + half)
    return low, high


def ratio_interval(
    amounts: Sequence[float], sizes: Sequence[float] | None = None, level: float = LEVEL
) -> tuple[float, float] | None:
    """Interval for sum(amounts) / sum(sizes), such as nats per token over items of unequal length.

    Both sums come from the same sampled items, so the ratio's error is that of the mean of its residuals
    `amount - ratio * size` (the delta method), with Student's t for the number of items. With equal sizes this is
    exactly the usual t interval for a mean.

    Returns:
        Its ends, or None for a single item, which says nothing about others.
    """
    amount = np.asarray(amounts, dtype=np.float64)
    size = np.ones_like(amount) if sizes is None else np.asarray(sizes, dtype=np.float64)
    count = len(amount)
    if count < 2:
        return None
    ratio = amount.sum() / size.sum()
    residuals = amount - ratio * size
    error = math.sqrt(count / (count - 1) * float(residuals @ residuals)) / float(size.sum())
    half = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
    return float(ratio) - half, float(ratio) + half


def proportion(right: Sequence[bool], truncated: int = 0) -> Measured:
    """The share of items that are right, with Wilson's interval."""
    low, high = wilson(sum(right), len(right))
    values = tuple(float(value) for value in right)
    return Measured(sum(values) / len(values), low, high, len(values), True, values, truncated=truncated)


def mean(
    amounts: Sequence[float], sizes: Sequence[float] | None = None, *, higher_is_better: bool, truncated: int = 0
) -> Measured:
    """sum(amounts) / sum(sizes) with its interval; each item's value is its own ratio, its weight its size."""
    weights = tuple(float(size) for size in sizes) if sizes is not None else ()
    values = tuple(a / s for a, s in zip(amounts, weights, strict=True)) if weights else tuple(map(float, amounts))
    interval = ratio_interval(amounts, sizes)
    low, high = interval if interval is not None else (None, None)
    value = math.fsum(amounts) / (math.fsum(weights) if weights else len(values))
    return Measured(value, low, high, len(values), higher_is_better, values, weights, truncated)
