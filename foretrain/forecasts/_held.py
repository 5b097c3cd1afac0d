"""Held values: forecasters that say one value for all that comes; what every law has to beat."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from foretrain.errors import RequestError
from foretrain.forecasts.base import Fitted, Forecaster
from foretrain.forecasts.curves import Course, Curve, Floats, refuse_mixed
from foretrain.hashing import seed_from

_DRAWS = 1000


class Holding(Forecaster):
    """Says one value of each curve for whatever comes after it: its own, or that of the run with the most compute."""

    @abstractmethod
    def held(self, values: Floats) -> float:
        """The value that is said for what follows these."""

    def fit(self, curves: Sequence[Curve]) -> FittedHolding:
        """Look at the curves.

        Raises:
            RequestError: one is empty, or their figures do not compare.
        """
        refuse_mixed(curves)
        empty = [curve.name for curve in curves if not curve.steps.size]
        if empty:
            raise RequestError(f"{empty[0]}: it has no point yet.")
        return FittedHolding(self, curves)


class FittedHolding(Fitted):
    """Values to hold; spread as wide as the same rule would have erred over the second half of what was seen."""

    def __init__(self, rule: Holding, curves: Sequence[Curve]) -> None:
        self._rule, self._curves = rule, {curve.name: curve for curve in curves}
        self._largest = max(curves, key=lambda curve: curve.compute)
        self.constants = {"value": rule.held(self._largest.values)}

    def predict(self, course: Course) -> Floats:
        """The same value for every step."""
        return np.full(course.steps.size, self._rule.held(self._seen(course).values))

    def draws(self, course: Course) -> Floats:
        """Normal around it."""
        values = self._seen(course).values
        earlier = [self._rule.held(values[: place + 1]) for place in range(values.size // 2, values.size - 1)]
        spread = float(np.sqrt(np.mean((np.array(earlier) - values[-1]) ** 2))) if earlier else abs(float(values[-1]))
        generator = np.random.default_rng(seed_from("forecast-held", self._rule.kind))
        return self.predict(course) + spread * generator.standard_normal((_DRAWS, course.steps.size))

    def _seen(self, course: Course) -> Curve:
        return self._curves.get(course.name, self._largest)
