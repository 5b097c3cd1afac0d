"""Schedule: a scalar over the steps of a run, as a plain function that can be plotted without a run."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from foretrain.parts import Part


class Schedule(Part):
    """A factor in [0, 1] (of the peak value) as a function of the step alone.

    `factor(step, total)` is the factor used by the update of step `step` (0-based) of `total`. The warm-up is shared
    by all schedules: it rises linearly from 1/w to 1 over the first w steps; a schedule describes what follows.
    """

    axis: ClassVar[str] = "schedule"

    warmup: float = Field(0.02, ge=0.0)
    """Length of the linear rise at the start: a share of the run below 1, a number of steps from 1 on."""

    def factor(self, step: int, total: int) -> float:
        """The factor of step `step` (0-based) in a run of `total` steps."""
        rise = span(self.warmup, total)
        if step < rise:
            return (step + 1) / rise
        return self.shape(step - rise, max(1, total - rise))

    @abstractmethod
    def shape(self, step: int, total: int) -> float:
        """The factor `step` steps after the warm-up, of the `total` steps that follow it."""


def span(length: float, total: int) -> int:
    """A length given as a share of the run (below 1) or as a number of steps (from 1 on), in steps."""
    return round(length * total) if length < 1 else round(length)
