"""End a run with the exponential moving average of its weights."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.steering._averaging import Averaging


class ExponentialAverage(Averaging):
    """EMA of the weights, without its bias: the snapshot that came i before the newest weighs decay^i, normalised.

    So the weights that the run began with have no share in it, and it is the plain mean as long as it is short against
    1 / (1 - decay) snapshots. It is put in place after the last step; evaluations before that see the weights in
    training.
    """

    kind: Literal["exponential_average"] = "exponential_average"
    facts: ClassVar[Facts] = Facts(
        paper="Exponential Moving Average of Weights in Deep Learning: Dynamics and Benefits",
        arxiv="2411.18704",
        year=2024,
        answers="update: which weights does the run end with? the moving average of all its steps",
        overhead="a copy of the weights, and a pass over them at each snapshot",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"decay": 0.0}

    decay: Number = Field(0.99, ge=0, lt=1)
    """What is left of a snapshot's weight after each further one; it looks back on about 1 / (1 - decay) of them."""

    def wanted(self, left: int) -> bool:
        return True

    def weight(self, taken: int) -> float:
        return (1 - self.decay) / (1 - self.decay**taken)
