"""Laws: forecasters that are a formula with a few constants. A law says what it reads, how it is solved, its value."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from pydantic import Field

from foretrain.errors import RequestError
from foretrain.forecasts._fitting import relative_error, resampled
from foretrain.forecasts.base import Fitted, Forecaster
from foretrain.forecasts.curves import Course, Curve, Floats, refuse_mixed
from foretrain.hashing import seed_from
from foretrain.spans import Span, span

MOST_POINTS = 120
"""Points of a curve that a fit looks at; longer ones are averaged over stretches."""
_FEW_CURVES = 4


class Law(Forecaster):
    """A formula with constants, fitted to the points of one or more curves.

    Intervals come from refits: residuals are drawn again in blocks, where there are many curves those are drawn again
    too, and the spread of the residuals is added. They hold as far as the formula does; what it leaves out they do
    not know.
    """

    early: Span = Field(0.05, ge=0)
    """What is left out at the start of each curve: a share of the run, or steps."""
    refits: int = Field(60, ge=2)
    """Refits that the intervals come from."""

    @abstractmethod
    def read(self, course: Course) -> Floats:
        """What the formula reads at each of the steps, [n, columns]."""

    @abstractmethod
    def solve(self, read: Floats, values: Floats, near: Mapping[str, float] | None = None) -> dict[str, float]:
        """The constants that fit best; `near` those of an earlier fit, around which a refit may look."""

    @abstractmethod
    def value(self, constants: Mapping[str, float], read: Floats) -> Floats:
        """The formula, [n]."""

    def begins(self, curve: Curve) -> int:
        """The step from which on a curve is looked at."""
        return 1 + span(self.early, curve.total)

    def settled(self, curves: Sequence[Curve]) -> Law:
        """This law, with every setting that it chooses by itself chosen."""
        return self

    def check(self, curves: Sequence[Curve]) -> None:
        """Refuse curves that do not tell its constants.

        Raises:
            RequestError: they do not.
        """

    def fit(self, curves: Sequence[Curve]) -> FittedLaw:
        """Fit to all points behind the early part of each curve, up to 120 of each.

        Raises:
            RequestError: too few points, figures that do not compare, or that are not above 0.
        """
        refuse_mixed(curves)
        whole = [curve.between(self.begins(curve), curve.last) for curve in curves]
        used = [curve.thinned(MOST_POINTS) for curve in whole]
        short = [curve.name for curve in used if not curve.steps.size]
        if short:
            raise RequestError(f"{short[0]}: no point is left behind the early part of it; `early` is {self.early}.")
        if any((curve.values <= 0).any() for curve in used):
            raise RequestError("A law of a loss needs values above 0.")
        self.check(used)
        law = self.settled(used)
        reads = [law.read(curve) for curve in used]
        constants = law.solve(np.concatenate(reads), np.concatenate([curve.values for curve in used]))
        # Of single points, and late ones: what is left out early is not what a forecast is about.
        late = [curve.between(int(curve.steps[curve.steps.size // 2]), curve.last) for curve in whole]
        noise = [curve.values / law.value(constants, law.read(curve)) - 1 for curve in late]
        return FittedLaw(law, constants, used, reads, np.concatenate(noise))


class FittedLaw(Fitted):
    """A law with its constants.

    Attributes:
        law: the formula, with every setting chosen.
        constants: of the formula.
        error: mean relative error on the points it was fitted to.
    """

    def __init__(
        self,
        law: Law,
        constants: Mapping[str, float],
        curves: Sequence[Curve],
        reads: Sequence[Floats],
        noise: Floats,
    ) -> None:
        self.law, self.constants, self._curves, self._reads, self._noise = law, constants, curves, reads, noise
        self._fits = [law.value(constants, read) for read in reads]
        self._residuals = [curve.values / fit - 1 for curve, fit in zip(curves, self._fits, strict=True)]
        values = np.concatenate([curve.values for curve in curves])
        self.error = relative_error(np.concatenate(self._fits), values)

    def predict(self, course: Course) -> Floats:
        """The formula's value after each of the steps."""
        return self.law.value(self.constants, self.law.read(course))

    def draws(self, course: Course) -> Floats:
        """The formula's value with the constants of every refit, and the residuals' spread."""
        read, law = self.law.read(course), self.law
        generator = np.random.default_rng(seed_from("forecast-noise", law.kind))
        noise = generator.choice(self._noise, (len(self._refitted), len(read)))
        return np.stack([law.value(found, read) for found in self._refitted]) * (1 + noise)

    @cached_property
    def _refitted(self) -> list[dict[str, float]]:
        generator = np.random.default_rng(seed_from("forecast-refits", self.law.kind))
        found = []
        count = len(self._curves)
        for drawn in resampled(self._residuals, self.law.refits, generator):
            picked = range(count) if count < _FEW_CURVES else sorted(generator.integers(0, count, count).tolist())
            values = np.concatenate([self._fits[place] * (1 + drawn[place]) for place in picked])
            read = np.concatenate([self._reads[place] for place in picked])
            found.append(self.law.solve(read, values, self.constants))
        return found
