"""A power law in the steps, or in the area below the learning rate: what laws with more terms have to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from foretrain.forecasts._fitting import around, project
from foretrain.forecasts._law import Law
from foretrain.forecasts.curves import Course, Floats
from foretrain.forecasts.lr_annealing import areas, rates_of
from foretrain.parts import Facts


class PowerLaw(Law):
    """L = L0 + A * x^(-alpha), where x is the number of steps or the sum of the learning rates up to there."""

    kind: Literal["power_law"] = "power_law"
    facts: ClassVar[Facts] = Facts(
        paper="Deep Learning Scaling is Predictable, Empirically",
        arxiv="1712.00409",
        year=2017,
        answers="what will the loss be after more steps?",
    )

    over: Literal["steps", "rates"] = "steps"
    """What it is a law of: `steps`, or the sum of all learning rates so far (`rates`; a warm-up counts at its top)."""

    @property
    def reads_rates(self) -> bool:
        return self.over == "rates"

    def read(self, course: Course) -> Floats:
        """The one column x."""
        if self.over == "steps":
            return course.steps.astype(np.float64)[:, None]
        return areas(rates_of(course), 0.0)[course.steps - 1, :1]

    def solve(self, read: Floats, values: Floats, near: Mapping[str, float] | None = None) -> dict[str, float]:
        """Over alpha from 0.05 to 2, to 0.002."""
        x = read[:, 0]

        def terms(exponents: tuple[float, ...]) -> Floats:
            return np.stack([np.ones_like(x), x ** -exponents[0]], 1)

        found = project(values, terms, [around(near, "alpha", np.arange(0.05, 2.01, 0.05))], quick=near is not None)
        return {
            "L0": float(found.coefficients[0]),
            "A": float(found.coefficients[1]),
            "alpha": found.exponents[0],
        }

    def value(self, constants: Mapping[str, float], read: Floats) -> Floats:
        return constants["L0"] + constants["A"] * read[:, 0] ** -constants["alpha"]
