"""Schedule: a scalar over the steps of a run, as a plain function that can be plotted without a run."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from foretrain.parts import Part
from foretrain.spans import Span, span


class Schedule(Part):
    """A factor in [0, 1] (of the peak value) as a function of the step alone.

    `factor(step, total)` is the factor used by the update of step `step` (0-based) of `total`. The warm-up is shared
    by all schedules: it rises linearly from 1/w to 1 over the first w steps; a schedule describes what follows.

    A phase of n steps starts at its first level and would reach its last level on the step after it (the convention
    of most published schedules). So a schedule that falls to a `floor` makes its last step one n-th short of it, and
    a floor of 0 wastes no step.
    """

    axis: ClassVar[str] = "schedule"

    warmup: Span = Field(0.02, ge=0.0)
    """Length of the linear rise at the start: a share of the run, or steps."""

    def factor(self, step: int, total: int) -> float:
        """The factor of step `step` (0-based) in a run of `total` steps."""
        start = min(span(self.warmup, total), total)
        if step < start:
            return (step + 1) / start
        return self.shape(step, start, total)

    @abstractmethod
    def shape(self, step: int, start: int, total: int) -> float:
        """The factor of step `step`, from `start` (the first after the warm-up) to `total - 1`."""


def curve(schedule: Schedule, total: int) -> list[float]:
    """The factor of every step of a run of `total` steps."""
    return [schedule.factor(step, total) for step in range(total)]


def between(high: float, low: float, share: float) -> float:
    """From `high` (at a share of 1) to `low` (at 0) along a straight line, and never outside."""
    return low + (high - low) * min(1.0, max(0.0, share))
