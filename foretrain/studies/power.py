"""What a study of so many seeds can see: the chance of a verdict, the seeds it takes, the smallest effect it calls.

All of it follows the rules of `statistics.judge` with the true difference and the true spread given: differences
between arms are normal, the interval is Student's t, and each of several planned contrasts is held to its Bonferroni
share of `alpha` (Holm's correction is never stricter, so the chances here are on the low side for several contrasts).
"""

from __future__ import annotations

import functools
import math
import sys

import numpy as np
from scipy import special

POWER = 0.8
"""The chance of a verdict that a study is planned for."""

MOST_SEEDS = 1000
"""Where looking for a number of seeds stops."""

_NODES = 128
_FAR = 1e9


def critical(seeds: int, alpha: float) -> float:
    """How many standard errors the two-sided `1 - alpha` interval of Student's t reaches; `seeds` is at least 2."""
    return float(special.stdtrit(seeds - 1, 1 - alpha / 2))


def chance_to_decide(
    difference: float, sd: float, seeds: int, *, smallest: float = 0.0, alpha: float = 0.05, contrasts: int = 1
) -> float:
    """The chance that a study of `seeds` paired seeds ends in better, worse or no difference.

    With `smallest` 0 there is no verdict "no difference", and this is the power of the two-sided paired t test.

    Args:
        difference: true mean of the differences, in the metric's unit.
        sd: true standard deviation of the differences, above 0.
        seeds: pairs; below 2 nothing can be decided.
        smallest: the smallest effect that matters, 0 or more.
        alpha: error rate of the family.
        contrasts: planned contrasts that share `alpha`.
    """
    if seeds < 2:
        return 0.0
    spread, weights = _spreads(seeds)
    # In units of the true standard error of the mean: the observed half-width of the interval, given the observed sd.
    error = max(sd / math.sqrt(seeds), sys.float_info.min)
    half = critical(seeds, alpha / contrasts) * spread
    true, margin = min(abs(difference) / error, _FAR), min(smallest / error, _FAR)
    away = special.ndtr(-half - true) + special.ndtr(true - half)
    inside = np.maximum(margin - half, 0.0)
    near = special.ndtr(inside - true) - special.ndtr(-inside - true)
    # An interval narrower than `smallest` on the whole always decides: the two regions of the mean then overlap.
    decided = np.where(inside > half, 1.0, away + near)
    return float(np.clip(weights @ decided, 0.0, 1.0))


def seeds_needed(
    difference: float,
    sd: float,
    *,
    smallest: float = 0.0,
    alpha: float = 0.05,
    contrasts: int = 1,
    power: float = POWER,
    most: int = MOST_SEEDS,
) -> int | None:
    """The fewest seeds (in all, 2 or more) that end in a verdict with chance `power`; None when above `most`.

    Takes what `chance_to_decide` takes. Never more than either a better/worse or a no-difference verdict alone needs.
    """
    if sd <= 0:
        return 2 if difference or smallest else None

    def enough(seeds: int) -> bool:
        return chance_to_decide(difference, sd, seeds, smallest=smallest, alpha=alpha, contrasts=contrasts) >= power

    # The chance grows with the seeds, so: double until it is enough, then halve the gap.
    low, high = 1, 2
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable(
    noise_of_difference_sd: float, seeds: int, alpha: float = 0.05, contrasts: int = 1, power: float = POWER
) -> float | None:
    """The smallest true difference that such a study would call better or worse with chance `power`.

    Args:
        noise_of_difference_sd: standard deviation of the paired differences, in the metric's unit. Where only the
            noise of one arm is known, `sqrt(2)` times that is the upper end: what seeds share cancels in the pair.
        seeds: pairs.
        alpha: error rate of the family.
        contrasts: planned contrasts that share `alpha`.
        power: the chance asked for, in (0, 1).

    Returns:
        A difference in the metric's unit; None below two seeds, where nothing can be called.
    """
    if seeds < 2:
        return None
    if noise_of_difference_sd <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while chance_to_decide(high, 1.0, seeds, alpha=alpha, contrasts=contrasts) < power:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        enough = chance_to_decide(middle, 1.0, seeds, alpha=alpha, contrasts=contrasts) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high * noise_of_difference_sd


@functools.lru_cache(maxsize=512)
def _spreads(seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the observed sd over the true one, [_NODES], and their weights, which sum to 1."""
    nodes, weights = _legendre()
    chi_square = special.chdtri(seeds - 1, (1 - nodes) / 2)
    return np.sqrt(chi_square / (seeds - 1)), weights / 2


@functools.lru_cache(maxsize=1)
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    return nodes, weights
