"""Average the weights of checkpoints and of runs."""

from __future__ import annotations

from typing import ClassVar, Literal

from foretrain.merging._weighted import Weighted
from foretrain.parts import Facts


class Average(Weighted):
    """The uniform mean of the weights of the last checkpoints of every run, summed in float64.

    Of one run it is checkpoint averaging (latest weight averaging; stochastic weight averaging, arXiv 1803.05407), of
    several that began from the same weights a model soup (arXiv 2203.05482). Runs from different weights end in
    different valleys of the loss, and their mean is no model. What is averaged is the plain model of each checkpoint,
    so it is the same for every parametrization. It costs one pass over the weights, and as much at use as one model.
    """

    kind: Literal["average"] = "average"
    facts: ClassVar[Facts] = Facts(
        paper="Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging",
        arxiv="2209.14981",
        year=2022,
        answers="what is the model? the mean of the weights of several checkpoints",
    )

    def shares(self) -> list[float]:
        return [1.0] * self.last
