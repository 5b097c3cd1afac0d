"""Stopping: which arms of a study are still worth their budget, asked at a few shares of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from foretrain.parts import Part

Figures = Mapping[str, Mapping[int, float]]
"""The deciding metric by arm and seed, turned so that lower is better; seeds whose trial failed are left out."""


class Stopping(Part):
    """A rule that ends losing arms early. All trials of a study are compared at the same share of the budget."""

    axis: ClassVar[str] = "stopping"

    @abstractmethod
    def rungs(self) -> tuple[float, ...]:
        """The shares of the budget, rising and within (0, 1), at which arms may be stopped."""

    @abstractmethod
    def stopped(self, rung: float, figures: Figures, baseline: str) -> set[str]:
        """The arms that end at this rung; never the baseline, which the others are compared with.

        Args:
            rung: one of `rungs()`.
            figures: what every arm that still runs has reached at that share of its budget.
            baseline: the arm that goes on in any case.
        """
