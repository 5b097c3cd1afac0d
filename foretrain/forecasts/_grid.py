"""Forecasters that know learning curves in general: a curve becomes points of a grid, rising within [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from foretrain.errors import RequestError
from foretrain.forecasts._curve_prior import LENGTH
from foretrain.forecasts.base import Fitted, Forecaster
from foretrain.forecasts.curves import Course, Curve, Floats, refuse_mixed

_FEWEST = 2
_DRAWS = 200
_EDGE = 1e-4


class Answer(ABC):
    """The distribution of a curve at each of the places that were asked for, as the grid has it."""

    @abstractmethod
    def quantiles(self, levels: Floats) -> Floats:
        """[levels, n]."""

    @abstractmethod
    def log_density(self, values: Floats) -> Floats:
        """Of one value at each place, [n]."""


class GridForecaster(Forecaster):
    """Goes on with one curve from what was seen of it; other curves tell it nothing.

    The run, up to the end that is asked for, is cut into 50 equal stretches, and the mean of each seen one is a point.
    Losses are mapped to rising values within [0, 1]: the first point and half of the fall so far below the lowest are
    the ends of the middle half of a sigmoid.
    """

    scale: Literal["falling", "rising", "unit"] = Field("falling")
    """What the figure is: a loss that falls, a score that rises, or one that rises and lies within [0, 1] as it is."""

    @abstractmethod
    def answer(self, x: Floats, y: Floats, asked: Floats) -> Answer:
        """What the curve is at `asked` [n], given its values `y` [k] at `x` [k], all on the grid of 1 to 50."""

    def fit(self, curves: Sequence[Curve]) -> FittedGrid:
        """Keep the curves: each is gone on with by itself.

        Raises:
            RequestError: their figures do not compare.
        """
        refuse_mixed(curves)
        return FittedGrid(self, curves)


class FittedGrid(Fitted):
    """Curves, each of which can be gone on with."""

    def __init__(self, part: GridForecaster, curves: Sequence[Curve]) -> None:
        self._part, self._curves = part, {curve.name: curve for curve in curves}

    def predict(self, course: Course) -> Floats:
        """The median after each of the steps."""
        return self.quantiles(course, [0.5])[0]

    def draws(self, course: Course) -> Floats:
        """Evenly spaced quantiles: right at every step by itself, and not as courses."""
        return self.quantiles(course, (np.arange(_DRAWS) + 0.5) / _DRAWS)

    def quantiles(self, course: Course, levels: Sequence[float] | Floats) -> Floats:
        """The figure's quantiles after each step, [levels, n]."""
        answer, scale = self._answer(course)
        wanted = np.asarray(levels, dtype=np.float64)
        return scale.back(answer.quantiles(1 - wanted if scale.falling else wanted))

    def log_density(self, course: Course, values: Floats) -> Floats:
        answer, scale = self._answer(course)
        return answer.log_density(scale.there(values)) + scale.log_slope(values)

    def _answer(self, course: Course) -> tuple[Answer, _Scale]:
        curve = self._curves.get(course.name)
        if curve is None:
            raise RequestError(
                f"{self._part.kind} goes on with a curve that it has seen the beginning of, and it has seen none of "
                f"{course.name}. A law (lr_annealing, chinchilla) predicts a run from others."
            )
        width = max(curve.total, int(course.steps[-1])) / LENGTH
        bins = np.ceil(curve.steps / width).astype(np.int64)
        whole = bins * width <= curve.last
        places = np.unique(bins[whole])
        if places.size < _FEWEST:
            raise RequestError(
                f"{course.name}: of the {LENGTH} stretches of the run only {places.size} can be seen; "
                f"{self._part.kind} needs {_FEWEST} at least."
            )
        means = np.array([curve.values[bins == place].mean() for place in places])
        scale = _Scale(self._part.scale, means)
        return self._part.answer(places.astype(np.float64), scale.there(means), course.steps / width), scale


class _Scale:
    """The map of a figure to rising values within [0, 1], and back."""

    def __init__(self, kind: str, seen: Floats) -> None:
        self.unit, self.falling = kind == "unit", kind == "falling"
        lost = max(abs(float(seen[0] - (seen.min() if self.falling else seen.max()))), 1e-6 * abs(float(seen[0])), 1e-9)
        ends = sorted((float(seen[0]), float(seen[0]) + (-1.5 if self.falling else 1.5) * lost))
        self.low, self.width = ends[0], ends[1] - ends[0]

    def there(self, values: Floats) -> Floats:
        if self.unit:
            return values
        share = 1 / (1 + np.exp(1 - 2 * (values - self.low) / self.width))
        return 1 - share if self.falling else share

    def back(self, values: Floats) -> Floats:
        if self.unit:
            return values
        share = np.clip(1 - values if self.falling else values, _EDGE, 1 - _EDGE)
        return self.low + self.width * (np.log(share / (1 - share)) + 1) / 2

    def log_slope(self, values: Floats) -> Floats:
        if self.unit:
            return np.zeros_like(values)
        share = np.clip(self.there(values), _EDGE, 1 - _EDGE)
        return np.log(share * (1 - share) * 2 / self.width)
