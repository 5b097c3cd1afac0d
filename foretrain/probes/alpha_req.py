"""How fast does the spectrum of the features fall?"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.probes._spectrum import Floats, SpectrumProbe, features_of
from foretrain.section import Count

if TYPE_CHECKING:
    from typing_extensions import Self

    from foretrain.context import Context

POINTS = 3
"""Eigenvalues that a line is fitted to at least."""
NOTHING = 1e-12
"""Eigenvalues below this share of the largest are rounding."""


class AlphaReQ(SpectrumProbe):
    """Exponent alpha of the spectrum of the features: eigenvalue number i of the covariance is about i^-alpha.

    It is fitted as a line to the logarithms, by least squares with weights 1 / i, from eigenvalue `first` to `last`. A
    large alpha is a compressed representation, a small one a spread-out one; the line says something only where `r2` is
    near 1. With the largest eigenvalues outside of the range, single dimensions with massive activations do not matter.

    Figures: `alpha` and `r2` (weighted) of centred features; `uncentred/alpha`, `uncentred/r2` with their mean left in.
    A spectrum of fewer than three eigenvalues in the range that are above rounding has none.
    """

    kind: Literal["alpha_req"] = "alpha_req"
    facts: ClassVar[Facts] = Facts(
        paper="alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by measuring eigenspectrum "
        "decay",
        year=2022,
        answers="how fast does the spectrum of the features fall?",
        overhead="a forward pass of `contexts` contexts each time; not counted in the budget",
    )

    first: Count = Field(5, ge=1)
    """First eigenvalue of the fit; the largest is number 1."""
    last: Count | None = Field(None, ge=POINTS)
    """Last one; unset: half as many as there are features, 100 at most."""

    @model_validator(mode="after")
    def _some_range(self) -> Self:
        if self.last is not None and self.last < self.first + POINTS - 1:
            raise ValueError(
                f"last: from eigenvalue {self.first} on a line needs {POINTS}, so at least up to "
                f"{self.first + POINTS - 1}"
            )
        return self

    def setup(self, context: Context) -> None:
        """See the base.

        Raises:
            RequestError: the model has too few features for the range; and see the base.
        """
        super().setup(context)
        width = features_of(context)
        last = self._last(width)
        if last > width or last < self.first + POINTS - 1:
            raise RequestError(
                f"probe 'alpha_req': a model of {width} features has no eigenvalues {self.first} to {last} to fit a "
                f"line to; set `first` and `last` to a range of at least {POINTS} within 1 to {width}."
            )

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        spectra = self.spectra(context)
        found = fitted(spectra.centred, self.first, self._last(len(spectra.centred)))
        raw = fitted(spectra.raw, self.first, self._last(len(spectra.raw)))
        return {**found, **{f"uncentred/{name}": value for name, value in raw.items()}}

    def _last(self, width: int) -> int:
        return self.last if self.last is not None else min(width // 2, 100)


def fitted(eigenvalues: Floats, first: int, last: int) -> dict[str, float]:
    """`alpha` and `r2` of the line through (log i, log eigenvalue i), i from `first` to `last`, weighted by 1 / i."""
    numbers = np.arange(first, last + 1)
    values = eigenvalues[first - 1 : last]
    some = values > NOTHING * eigenvalues[0]
    if some.sum() < POINTS:
        return {}
    x, y, weights = np.log(numbers[some]), np.log(values[some]), 1.0 / numbers[some]
    x = x - np.average(x, weights=weights)
    y = y - np.average(y, weights=weights)
    slope = float((weights * x * y).sum() / (weights * x * x).sum())
    total = float((weights * y * y).sum())
    rest = float((weights * (y - slope * x) ** 2).sum())
    # A flat spectrum is a line that explains all there is.
    return {"alpha": -slope, "r2": 1 - rest / total if total > 1e-24 else 1.0}
