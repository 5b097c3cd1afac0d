"""A straight fall over the whole run."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from foretrain.parts import Facts
from foretrain.schedules.base import Schedule, between
from foretrain.section import Number


class Linear(Schedule):
    """Falls along a straight line from 1 at the first of the n steps after the warm-up towards `floor`.

    At the last step: floor + (1 - floor) / n.
    """

    kind: Literal["linear"] = "linear"
    floor: Number = Field(0.0, ge=0, le=1)
    """Where it falls to, as a share of the peak."""
    facts: ClassVar[Facts] = Facts(
        paper="Straight to Zero: Why Linearly Decaying the Learning Rate to Zero Works Best for LLMs",
        arxiv="2502.15938",
        year=2025,
        answers="how does the learning rate move? straight down",
    )

    def shape(self, step: int, start: int, total: int) -> float:
        return between(1.0, self.floor, (total - step) / (total - start))
