"""Warm-up, stable, decay: a plateau that can be left at any time."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.parts import Facts
from foretrain.schedules.base import Schedule, between
from foretrain.section import Number
from foretrain.spans import Span, span


class Wsd(Schedule):
    """Stays at 1 until the decay begins, then falls towards `floor` over the n last steps.

    With u = i / n for the i-th step of the decay (0 to n - 1) it stands at floor + (1 - floor) * f(u), where f is 1 - u
    (`linear`), 1 - sqrt(u) (`sqrt`, the best of those compared in arXiv 2405.18392) or (1 + cos(pi * u)) / 2
    (`cosine`). At the last step u = (n - 1) / n.
    """

    kind: Literal["wsd"] = "wsd"
    decay: Span = Field(0.2, ge=0)
    """Length of the decay at the end: a share of the run, or steps."""
    curve: Literal["linear", "sqrt", "cosine"] = "sqrt"
    """Form of the decay."""
    floor: Number = Field(0.0, ge=0, le=1)
    """Where it falls to, as a share of the peak."""
    facts: ClassVar[Facts] = Facts(
        paper="MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
        arxiv="2404.06395",
        year=2024,
        answers="how does the learning rate move? a plateau, then a short fall",
    )

    def shape(self, step: int, start: int, total: int) -> float:
        begin = max(start, total - span(self.decay, total))
        if step < begin:
            return 1.0
        done = (step - begin) / (total - begin)
        left = {"linear": 1 - done, "sqrt": 1 - math.sqrt(done), "cosine": (1 + math.cos(math.pi * done)) / 2}
        return between(1.0, self.floor, left[self.curve])
