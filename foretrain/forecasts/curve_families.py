"""The best of three families of learning curves by least squares: what a posterior over them has to beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from scipy import special

from foretrain.forecasts._grid import Answer, GridForecaster
from foretrain.forecasts.curves import Floats
from foretrain.parts import Facts


class CurveFamilies(GridForecaster):
    """A power, a logarithmic and a Janoschek curve, each by least squares; the best one, with normal residuals.

    Each is c + a * f(x), linear in c and a; the exponents of f are searched on a grid.
    """

    kind: Literal["curve_families"] = "curve_families"
    facts: ClassVar[Facts] = Facts(
        paper="Speeding up Automatic Hyperparameter Optimization by Extrapolation of Learning Curves",
        year=2015,
        answers="how will this learning curve go on, by the formula that fits best?",
    )

    def answer(self, x: Floats, y: Floats, asked: Floats) -> Answer:
        best: tuple[float, Floats] | None = None
        for seen, wanted in _shapes(x, asked):
            terms = np.stack([np.ones_like(seen), seen], 1)
            coefficients = np.linalg.lstsq(terms, y, rcond=None)[0]
            squares = float(((terms @ coefficients - y) ** 2).sum())
            if best is None or squares < best[0]:
                best = squares, coefficients[0] + coefficients[1] * wanted
        assert best is not None
        return _Normal(best[1], max(1e-3, float(np.sqrt(best[0] / max(1, y.size - 3)))))


def _shapes(x: Floats, asked: Floats) -> Iterator[tuple[Floats, Floats]]:
    for alpha in np.exp(np.linspace(-3, 3, 25)):
        yield x**-alpha, asked**-alpha
    yield 1 / np.log(x + 1), 1 / np.log(asked + 1)
    for k in np.exp(np.linspace(-4, 1, 11)):
        for delta in (0.4, 0.6, 0.8, 1.0, 1.3, 1.7):
            yield np.exp(-k * x**delta), np.exp(-k * asked**delta)


class _Normal(Answer):
    def __init__(self, means: Floats, deviation: float) -> None:
        self.means, self.deviation = means, deviation

    def quantiles(self, levels: Floats) -> Floats:
        return self.means + self.deviation * special.ndtri(levels)[:, None]

    def log_density(self, values: Floats) -> Floats:
        z = (values - self.means) / self.deviation
        return np.asarray(-0.5 * z**2 - np.log(self.deviation) - 0.5 * np.log(2 * np.pi))
