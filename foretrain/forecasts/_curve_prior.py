"""A prior over learning curves: sums of three families of rising curves within [0, 1], with noise. After LC-PFN."""

from __future__ import annotations

import numpy as np

from foretrain.forecasts.curves import Floats

LENGTH = 50
"""Points of a curve."""
_TRIES = 4


def curves(count: int, generator: np.random.Generator, length: int = LENGTH) -> Floats:
    """Curves without noise, [count, length], at x = 1 to `length`.

    Each is a sum over the families, with weights uniform in (0, 1) that are not normalised. Curves that do not end
    above their start, or leave [0, 1], are drawn again; this shapes the prior as much as the families do.
    """
    kept: list[Floats] = []
    have = 0
    while have < count:
        drawn = _drawn(_TRIES * (count - have) + 16, generator, length)
        inside = (drawn[:, -1] > drawn[:, 0]) & (drawn >= 0).all(1) & (drawn <= 1).all(1)
        kept.append(drawn[inside][: count - have])
        have += len(kept[-1])
    return np.concatenate(kept)


def noise(count: int, generator: np.random.Generator) -> Floats:
    """The standard deviation of each curve's noise, [count]: its logarithm is normal with mean -4 and deviation 1."""
    return np.exp(generator.normal(-4.0, 1.0, count))


def _drawn(count: int, generator: np.random.Generator, length: int) -> Floats:
    x = np.arange(1, length + 1, dtype=np.float64)

    def uniform(low: float, high: float) -> Floats:
        return generator.uniform(low, high, (count, 1))

    def log_normal(mean: float, deviation: float) -> Floats:
        return np.exp(generator.normal(mean, deviation, (count, 1)))

    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        pow3 = uniform(0, 1.25) - uniform(-0.6, 0.6) * x ** -log_normal(0, 2)
        ilog2 = uniform(0, 1) - uniform(-0.5, 0.5) / np.log(x + 1)
        top = uniform(0, 1)
        janoschek = top - (top - uniform(0, 2)) * np.exp(-log_normal(-2, 1) * x ** log_normal(0, 0.5))
        total: Floats = uniform(0, 1) * pow3 + uniform(0, 1) * ilog2 + uniform(0, 1) * janoschek
    return np.nan_to_num(total, nan=-1.0)
