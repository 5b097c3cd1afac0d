"""Successive halving: at each rung the better part of the arms goes on."""

from __future__ import annotations

import math
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.parts import Facts
from foretrain.studies.stopping.base import Curves, Figures, Stopping, rising


class SuccessiveHalving(Stopping):
    """At each rung the best 1 / `factor` of the arms go on, and the baseline beside them if it is not one of them.

    The rule compares arms at a share of their budget, so it presumes that who leads there leads at the end. Arms whose
    learning rate falls late (`wsd`, constant rates) look worse before they decay than they will be: compare them
    without this rule, or with rungs after the decay has begun.
    """

    kind: Literal["successive_halving"] = "successive_halving"
    facts: ClassVar[Facts] = Facts(
        paper="Non-stochastic Best Arm Identification and Hyperparameter Optimization",
        arxiv="1502.07943",
        year=2015,
        answers="which arms of a study are stopped early?",
        overhead="one evaluation a rung",
    )

    at: list[float] = Field([0.25, 0.5], min_length=1)
    """Shares of the budget at which arms are compared."""
    factor: float = Field(2.0, gt=1)
    """One in this many arms goes on at each rung, rounded up."""

    @model_validator(mode="after")
    def _rising(self) -> SuccessiveHalving:
        rising(self.at)
        return self

    def rungs(self) -> tuple[float, ...]:
        return tuple(self.at)

    def stopped(self, rung: float, figures: Figures, baseline: str, curves: Curves | None = None) -> set[str]:
        # The mean over the seeds that are left flatters an arm that failed on others, and it cannot be called better
        # any more: it comes after those with more seeds. Among equals the order of names decides: the same each time.
        means = {arm: fmean(found.values()) if found else math.inf for arm, found in figures.items()}
        order = sorted(figures, key=lambda arm: (-len(figures[arm]), means[arm], arm))
        kept = math.ceil(len(order) / self.factor)
        return set(order[kept:]) - {baseline}
