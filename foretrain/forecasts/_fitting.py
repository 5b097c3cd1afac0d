"""Fitting of laws: variable projection, Huber loss on logarithms from many starts, and resampling for intervals.

Laws are sums of a few terms that are linear in their coefficients once the exponents are fixed. Variable projection
walks a grid over the exponents and solves the rest exactly, so there are no starts to choose and no local minima.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from foretrain.errors import RequestError
from foretrain.forecasts.curves import Floats

DELTA = 1e-3
"""Relative residuals larger than this count with their size, not with its square."""
Design = Callable[[tuple[float, ...]], Floats]
"""From exponents to the terms, [n, k], of which the law is a sum with coefficients of 0 or more."""


@dataclass(frozen=True)
class Projection:
    """The best exponents of a grid, and the coefficients that go with them."""

    exponents: tuple[float, ...]
    coefficients: Floats
    loss: float


def huber(residuals: Floats, delta: float = DELTA) -> float:
    """Mean Huber loss of residuals."""
    size = np.abs(residuals)
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).mean())


def log_residuals(predicted: Floats, values: Floats) -> Floats:
    """The difference of logarithms; what is predicted below 0 counts as nearly 0."""
    return np.log(np.maximum(predicted, 1e-12)) - np.log(values)


def robust(terms: Floats, values: Floats, delta: float = DELTA, passes: int = 8) -> Floats:
    """Coefficients of 0 or more that minimise the Huber loss of relative residuals (iterated reweighting).

    Args:
        terms: [n, k].
        values: [n], above 0; their relative residuals are those of logarithms to first order.
        delta: see `huber`.
        passes: of reweighting.
    """
    scale = np.abs(terms).max(0)
    scale[scale == 0] = 1.0
    scaled = terms / scale
    weights = 1 / values
    coefficients = np.zeros(terms.shape[1])
    for _ in range(passes):
        coefficients = _solved(scaled * weights[:, None], values * weights)
        residuals = np.abs(scaled @ coefficients / values - 1)
        weights = np.sqrt(np.minimum(1.0, delta / np.maximum(residuals, 1e-12))) / values
    return coefficients / scale


def _solved(terms: Floats, values: Floats) -> Floats:
    """Least squares with coefficients of 0 or more: the unconstrained solution where it is one, which is faster."""
    gram = terms.T @ terms
    with np.errstate(all="ignore"):
        try:
            free = np.linalg.solve(gram, terms.T @ values)
        except np.linalg.LinAlgError:
            free = np.full(terms.shape[1], -1.0)
    if np.isfinite(free).all() and (free >= 0).all():
        return free
    return optimize.nnls(terms, values)[0]


def project(
    values: Floats, design: Design, grids: Sequence[Floats], delta: float = DELTA, quick: bool = False
) -> Projection:
    """Fit by variable projection: every combination of exponents, then twice a finer grid around the best.

    Args:
        values: [n], above 0.
        design: the terms at given exponents.
        grids: evenly spaced values of each exponent, two or more.
        delta: see `huber`.
        quick: once finer, and less reweighting: for refits, whose grids are short.

    Raises:
        RequestError: there are fewer points than numbers to fit.
    """
    terms = design(tuple(float(grid[0]) for grid in grids))
    free = terms.shape[1] + len(grids)
    if len(values) <= free:
        raise RequestError(
            f"A law with {free} numbers to fit needs more than {len(values)} points; give it more of the curves, or "
            "curves that were measured more often."
        )
    turns = 2 if quick else 3
    widths = [float(grid[1] - grid[0]) for grid in grids]
    best: Projection | None = None
    for turn in range(turns):
        # The first grid only has to find the neighbourhood.
        passes = 3 if turn == 0 or quick else 8
        for exponents in itertools.product(*grids):
            terms = design(exponents)
            coefficients = robust(terms, values, delta, passes)
            loss = huber(log_residuals(terms @ coefficients, values), delta)
            if best is None or loss < best.loss:
                best = Projection(tuple(float(each) for each in exponents), coefficients, loss)
        assert best is not None
        # Up to the best one's neighbours on this grid, in fifths; never below the lowest exponent.
        near = zip(best.exponents, widths, grids, strict=True)
        grids = [np.maximum(centre + width * np.arange(-4, 5) / 5, grid[0]) for centre, width, grid in near]
        widths = [width / 5 for width in widths]
    assert best is not None
    return best


def around(near: Mapping[str, float] | None, name: str, grid: Floats) -> Floats:
    """The grid of an exponent; in a refit, the part of it near the earlier fit."""
    if near is None:
        return grid
    width = grid[1] - grid[0]
    return np.maximum(near[name] + width * np.arange(-4, 5), grid[0])


def descend(
    log_predict: Callable[[Floats], Floats],
    values: Floats,
    starts: Sequence[Sequence[float]],
    bounds: Sequence[tuple[float, float]],
    delta: float = DELTA,
) -> Floats:
    """Fit by minimising the Huber loss on logarithms with L-BFGS-B from each of several starts.

    Args:
        log_predict: from parameters to the logarithms of what is predicted, [n].
        values: [n], above 0.
        starts: where it begins; the best end counts.
        bounds: of each parameter.
        delta: see `huber`.
    """
    wanted = np.log(values)

    def loss(parameters: Floats) -> float:
        # In units of delta squared, so that the optimizer's tolerances fit.
        return huber(log_predict(parameters) - wanted, delta) / delta**2

    ends = [optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds) for start in starts]
    return np.asarray(min(ends, key=lambda end: end.fun if math.isfinite(end.fun) else math.inf).x)


def resampled(residuals: Sequence[Floats], draws: int, generator: np.random.Generator) -> Iterator[list[Floats]]:
    """Residuals of every curve drawn again in blocks of a tenth of it, so that neighbours stay together."""
    for _ in range(draws):
        drawn = []
        for own in residuals:
            length = max(1, own.size // 10)
            starts = generator.integers(0, max(1, own.size - length + 1), -(-own.size // length))
            drawn.append(np.concatenate([own[start : start + length] for start in starts])[: own.size])
        yield drawn


def relative_error(predicted: Floats, measured: Floats) -> float:
    """Mean absolute relative error (ARE): of what was held out, the figure that forecasts are judged by."""
    return float((np.abs(predicted - measured) / np.abs(measured)).mean())
