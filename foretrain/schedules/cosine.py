"""Half a cosine over the whole run."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.parts import Facts
from foretrain.schedules.base import Schedule, between
from foretrain.section import Number


class Cosine(Schedule):
    """Falls along half a cosine from 1 at the first of the n steps after the warm-up towards `floor`.

    At the last step: floor + (1 - floor) * (1 + cos(pi * (n - 1) / n)) / 2.
    """

    kind: Literal["cosine"] = "cosine"
    floor: Number = Field(0.1, ge=0, le=1)
    """Where it falls to, as a share of the peak."""
    facts: ClassVar[Facts] = Facts(
        paper="SGDR: Stochastic Gradient Descent with Warm Restarts",
        arxiv="1608.03983",
        year=2016,
        answers="how does the learning rate move? down half a cosine",
    )

    def shape(self, step: int, start: int, total: int) -> float:
        done = (step - start) / (total - start)
        return between(1.0, self.floor, (1 + math.cos(math.pi * done)) / 2)
