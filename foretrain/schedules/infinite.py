"""Warm-up, cool-down to a constant, and an anneal only when a model is wanted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.parts import Facts
from foretrain.schedules.base import Schedule, between
from foretrain.section import Number
from foretrain.spans import Span, span

if TYPE_CHECKING:
    from typing_extensions import Self


class Infinite(Schedule):
    """Cools down from 1 to `constant`, stays there for any time, and anneals to `floor` over the n last steps.

    With u = i / n for the i-th step of a phase of n steps, the cool-down stands at constant + (1 - constant) * f(u),
    where f is (1 + cos(pi * u)) / 2 (`cosine`), 1 - u (`linear`) or 1 - h(u) / h(1) with
    h(u) = 1 / sqrt(1 + 10 * u) - 1 (`inverse_sqrt`). The anneal is exponential: constant * (floor / constant) ** u,
    with u = (i + 1) / n, so the last step is exactly at `floor`. Where a run is too short for all phases, the later
    ones are cut.

    For data that arrive one after the other: the first run as it is, later ones `--from` the state before the anneal
    (`anneal: 0`) with `warmup: 0` and `cooldown: 0`.
    """

    kind: Literal["infinite"] = "infinite"
    warmup: Span = Field(0.05, ge=0.0)
    """Length of the linear rise at the start: a share of the run, or steps."""
    cooldown: Span = Field(0.1, ge=0)
    """Length of the fall from the peak to `constant`: a share of the run, or steps."""
    curve: Literal["cosine", "linear", "inverse_sqrt"] = "cosine"
    """Form of the cool-down."""
    constant: Number = Field(0.1, gt=0, le=1)
    """Level of the constant phase, as a share of the peak."""
    anneal: Span = Field(0.2, ge=0)
    """Length of the anneal at the end: a share of the run, or steps; 0 for none."""
    floor: Number = Field(0.01, gt=0, le=1)
    """Where the anneal ends, as a share of the peak."""
    facts: ClassVar[Facts] = Facts(
        paper="Beyond Cosine Decay: On the effectiveness of Infinite Learning Rate Schedule for Continual Pre-training",
        arxiv="2503.02844",
        year=2025,
        answers="how does the learning rate move? to a constant that needs no end",
    )

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.floor > self.constant:
            raise ValueError(f"floor ({self.floor:g}) should not lie above constant ({self.constant:g})")
        return self

    def shape(self, step: int, start: int, total: int) -> float:
        cooled = start + span(self.cooldown, total)
        begin = max(cooled, total - span(self.anneal, total))
        if step >= begin:
            return self.constant * (self.floor / self.constant) ** ((step + 1 - begin) / (total - begin))
        if step >= cooled:
            return self.constant
        done = (step - start) / (cooled - start)
        left = {
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "linear": 1 - done,
            "inverse_sqrt": 1 - _falling(done) / _falling(1.0),
        }
        return between(1.0, self.constant, left[self.curve])


def _falling(share: float) -> float:
    return 1 / math.sqrt(1 + 10 * share) - 1
