"""Forecaster: learns from curves, and says what other steps, schedules or sizes will come to, and how sure that is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from foretrain.forecasts.curves import Course, Curve, Floats
from foretrain.parts import Part


class Fitted(ABC):
    """What was learnt from some curves. Nothing of it changes any more: the same question has the same answer."""

    constants: Mapping[str, float] = {}
    """What was fitted, by name, for people."""

    @abstractmethod
    def predict(self, course: Course) -> Floats:
        """The figure after each of the steps of a course, [n].

        Raises:
            RequestError: the course lacks something that this forecaster needs (learning rates, a size).
        """

    @abstractmethod
    def draws(self, course: Course) -> Floats:
        """What might be measured there, [draws, n]: equally likely courses of the figure, noise included."""

    def quantiles(self, course: Course, levels: Sequence[float]) -> Floats:
        """The figure's quantiles after each step, [levels, n]."""
        return np.quantile(self.draws(course), levels, axis=0)

    def chance_below(self, course: Course, value: float) -> Floats:
        """The chance that the figure lies below `value` after each step, [n]."""
        return (self.draws(course) < value).mean(0)

    def log_density(self, course: Course, values: Floats) -> Floats:
        """Logarithm of the density given to values measured after the steps, [n].

        It is that of a normal with the mean and deviation of the draws, unless a forecaster knows better.
        """
        draws = self.draws(course)
        deviation = np.maximum(draws.std(0), 1e-9)
        return -0.5 * ((values - draws.mean(0)) / deviation) ** 2 - np.log(deviation) - 0.5 * math.log(2 * math.pi)


class Forecaster(Part):
    """A way to forecast. It reads curves (`curves.Curve`) and nothing else; what it learns is in what `fit` returns."""

    axis: ClassVar[str] = "forecaster"

    @property
    def reads_rates(self) -> bool:
        """Whether another schedule makes another forecast."""
        return False

    @abstractmethod
    def fit(self, curves: Sequence[Curve]) -> Fitted:
        """Learn from curves of one figure; the same curves give the same.

        Raises:
            RequestError: it cannot: too few points, or curves that do not tell what it wants to know.
        """
