"""Average the weights of the last checkpoints, each further one by a fixed share."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from foretrain.merging._weighted import Weighted
from foretrain.parts import Facts
from foretrain.section import Count, Number


class ExponentialAverage(Weighted):
    """EMA over the last checkpoints M_1 (the oldest) to M_n: avg_1 = M_1, avg_i = alpha M_i + (1 - alpha) avg_(i-1).

    It stands in for the decay of the learning rate where the best data come last (curriculum model averaging). The
    oldest checkpoint keeps the weight (1 - alpha)^(n-1): of six at `alpha` 0.2 it has 0.33 and the newest 0.2, so that
    the average lies further back than the uniform mean does. From `alpha` 0.5 on weights never fall towards the newest;
    1 is the newest alone. Several runs count alike.
    """

    kind: Literal["exponential_average"] = "exponential_average"
    facts: ClassVar[Facts] = Facts(
        paper="How Learning Rate Decay Wastes Your Best Data in Curriculum-Based LLM Pretraining",
        arxiv="2511.18903",
        year=2025,
        answers="what is the model? the exponential average of several checkpoints",
    )

    last: Count = Field(6, gt=0)
    """How many of the newest checkpoints of each run are averaged, by the schedule of `checkpoint.every`."""
    alpha: Number = Field(0.2, gt=0, le=1)
    """Share of each further checkpoint."""

    def shares(self) -> list[float]:
        kept = 1 - self.alpha
        return [kept ** (self.last - 1), *(self.alpha * kept ** (self.last - i) for i in range(2, self.last + 1))]
