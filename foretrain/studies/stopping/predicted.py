"""Predicted stopping: an arm ends where a forecaster sees hardly a chance that it becomes the best."""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from foretrain.errors import RequestError
from foretrain.forecasts.base import Forecaster
from foretrain.forecasts.curves import Floats
from foretrain.hashing import seed_from
from foretrain.parts import Facts, PartOf
from foretrain.studies.stopping.base import Curves, Figures, Stopping, rising


class Predicted(Stopping):
    """At each rung an arm is stopped if the chance that it ends better than the best one is below `delta`.

    A forecaster goes on with the curve of every trial to its planned end; the chance is that of the mean over seeds.
    An arm that it cannot go on with, and the one that leads, are not stopped. `lc_pfn` needs nothing but the curve, and
    does not foresee what a learning rate that falls late will do; `lr_annealing` does, once a rate has fallen.
    """

    kind: Literal["predicted"] = "predicted"
    facts: ClassVar[Facts] = Facts(
        paper="Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted Networks",
        arxiv="2310.20447",
        year=2023,
        answers="which arms of a study are stopped early?",
        overhead="one evaluation and one forecast a rung",
    )
    reads_curves: ClassVar[bool] = True

    at: list[float] = Field([0.25, 0.5, 0.75], min_length=1)
    """Shares of the budget at which arms are looked at."""
    forecaster: PartOf[Forecaster] = Field({"kind": "lc_pfn"}, validate_default=True)
    """What goes on with the curves."""
    delta: float = Field(0.05, gt=0, lt=1)
    """The least chance with which an arm goes on."""
    best: Literal["reached", "predicted"] = "reached"
    """What it has to become better than: the best that any arm has reached so far (as published), or what the leading
    arm is predicted to end at, which stops more."""

    @model_validator(mode="after")
    def _rising(self) -> Predicted:
        rising(self.at)
        return self

    def rungs(self) -> tuple[float, ...]:
        return tuple(self.at)

    def stopped(self, rung: float, figures: Figures, baseline: str, curves: Curves | None = None) -> set[str]:
        means = {arm: fmean(found.values()) for arm, found in figures.items() if found}
        if not means:
            return set()
        leading = min(means, key=lambda arm: (means[arm], arm))
        ends = {arm: end for arm in means if (end := self._end(arm, curves or {})) is not None}
        best = means[leading]
        if self.best == "predicted" and leading in ends:
            best = min(best, float(np.median(ends[leading])))
        return {arm for arm, end in ends.items() if (end < best).mean() < self.delta} - {baseline, leading}

    def _end(self, arm: str, curves: Curves) -> Floats | None:
        """What the arm's mean over seeds may end at, [draws]; None where the forecaster cannot tell."""
        drawn = []
        for seed, curve in sorted(curves.get(arm, {}).items()):
            try:
                draws = self.forecaster.fit([curve]).draws(curve.at([curve.total]))[:, 0]
            except RequestError:
                return None
            # Seeds are independent of one another: each in an order of its own.
            drawn.append(np.random.default_rng(seed_from("predicted-stopping", arm, seed)).permutation(draws))
        return np.mean(drawn, axis=0) if drawn else None
