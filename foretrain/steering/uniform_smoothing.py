"""A null control for designed targets: smoothing that knows nothing of any feedback."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from foretrain.parts import Facts
from foretrain.steering._smoothing import Smoothing


class UniformSmoothing(Smoothing):
    """Label smoothing over the candidates that designers of targets choose from: `r` is uniform over all K of them.

    It takes as much weight off the true token as a designer with this gate would and gives it to the same tokens, all
    alike. What it gains over plain training comes from softening and not from where the weight went.
    """

    kind: Literal["uniform_smoothing"] = "uniform_smoothing"
    facts: ClassVar[Facts] = Facts(
        paper="Rethinking the Inception Architecture for Computer Vision",
        arxiv="1512.00567",
        year=2015,
        answers="target: null control, what does softening alone do, spread evenly over likely tokens?",
        overhead="a product with the output layer and the K largest logits of every token",
    )

    def spread(self, log_probabilities: Tensor) -> Tensor:
        return torch.full_like(log_probabilities, 1 / self.candidates)
