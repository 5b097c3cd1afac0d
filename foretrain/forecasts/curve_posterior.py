"""The posterior over learning curves by importance sampling: what `lc_pfn` was trained to say, slowly."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import special

from foretrain.forecasts import _curve_prior as prior
from foretrain.forecasts._grid import Answer, GridForecaster
from foretrain.forecasts.curves import Floats
from foretrain.hashing import seed_from
from foretrain.parts import Facts


class CurvePosterior(GridForecaster):
    """Draws many curves from the prior of LC-PFN, each weighted by how well it goes with what was seen.

    Good while the weights stay on many curves; with little noise and many seen points few are left.
    """

    kind: Literal["curve_posterior"] = "curve_posterior"
    facts: ClassVar[Facts] = Facts(
        paper="Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted Networks",
        arxiv="2310.20447",
        year=2023,
        answers="how will this learning curve go on, by brute force?",
    )

    samples: int = Field(50_000, ge=100)
    """Curves that are drawn from the prior."""

    def answer(self, x: Floats, y: Floats, asked: Floats) -> Answer:
        curves, sigma = _sample(self.samples)
        grid = np.arange(1, prior.LENGTH + 1)
        # Seen places are whole; what is asked may lie between two.
        residuals = (y - curves[:, x.astype(np.int64) - 1]) / sigma[:, None]
        logs = -0.5 * (residuals**2).sum(1) - y.size * np.log(sigma)
        weights = np.exp(logs - special.logsumexp(logs))
        keep = weights > 1e-6 * weights.max()
        weights = weights[keep] / weights[keep].sum()
        means = np.stack([np.interp(asked, grid, curve) for curve in curves[keep]])
        return _Mixture(means, sigma[keep], weights)


class _Mixture(Answer):
    """A mixture of normals at each place: means [m, n], deviations [m], weights [m]."""

    def __init__(self, means: Floats, sigma: Floats, weights: Floats) -> None:
        self.means, self.sigma, self.weights = means, sigma, weights

    def quantiles(self, levels: Floats) -> Floats:
        low = np.full((levels.size, self.means.shape[1]), self.means.min() - 8 * self.sigma.max())
        high = np.full_like(low, self.means.max() + 8 * self.sigma.max())
        for _ in range(30):
            middle = (low + high) / 2
            below = np.stack([self._below(row) for row in middle]) < levels[:, None]
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def _below(self, values: Floats) -> Floats:
        return self.weights @ special.ndtr((values - self.means) / self.sigma[:, None])

    def log_density(self, values: Floats) -> Floats:
        z = (values - self.means) / self.sigma[:, None]
        logs = np.log(self.weights)[:, None] - 0.5 * z**2 - np.log(self.sigma)[:, None] - 0.5 * np.log(2 * np.pi)
        return np.asarray(special.logsumexp(logs, axis=0))


@lru_cache(maxsize=2)
def _sample(count: int) -> tuple[Floats, Floats]:
    generator = np.random.default_rng(seed_from("curve-posterior", count))
    return prior.curves(count, generator), prior.noise(count, generator)
