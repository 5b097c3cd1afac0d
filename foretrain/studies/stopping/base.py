"""Stopping: which arms of a study are still worth their budget, asked at a few shares of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from foretrain.forecasts.curves import Curve
from foretrain.parts import Part

Figures = Mapping[str, Mapping[int, float]]
"""The deciding metric by arm and seed, turned so that lower is better; seeds whose trial failed are left out."""

Curves = Mapping[str, Mapping[int, Curve]]
"""The deciding figure of every trial over its steps so far, by arm and seed, turned in the same way."""


class Stopping(Part):
    """A rule that ends losing arms early. All trials of a study are compared at the same share of the budget."""

    axis: ClassVar[str] = "stopping"
    reads_curves: ClassVar[bool] = False
    """Whether it looks at curves."""

    @abstractmethod
    def rungs(self) -> tuple[float, ...]:
        """The shares of the budget, rising and within (0, 1), at which arms may be stopped."""

    @abstractmethod
    def stopped(self, rung: float, figures: Figures, baseline: str, curves: Curves | None = None) -> set[str]:
        """The arms that end at this rung; never the baseline, which the others are compared with.

        Args:
            rung: one of `rungs()`.
            figures: what every arm that still runs has reached at that share of its budget.
            baseline: the arm that goes on in any case.
            curves: of the trials whose arm is one run; only for rules that read them.
        """


def rising(at: Sequence[float]) -> None:
    """Refuse shares of a budget that do not rise within (0, 1).

    Raises:
        ValueError: they do not.
    """
    if sorted(set(at)) != list(at) or not 0 < at[0] <= at[-1] < 1:
        raise ValueError("at: should be rising shares between 0 and 1, such as [0.25, 0.5]")
