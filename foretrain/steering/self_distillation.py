"""A null control for designed targets: the learner's own predictions."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from foretrain.parts import Facts
from foretrain.steering._smoothing import Smoothing


class SelfDistillation(Smoothing):
    """Targets that lean towards what the learner predicts already: `r` is its own `p` over the candidates, sum 1.

    Over the whole vocabulary the gradient by the logits is `p - q = (1 - alpha)(p - onehot)`, the plain gradient times
    a number, which an optimizer that divides by the gradient's scale (Adam, Muon, sign descent) does not even see
    (weight decay and clipping do). There it is a null control: all the machinery of a designed target and none of its
    information. With fewer candidates `r` is sharper than `p`, and the targets also push the learner towards its own
    best guesses: for a small model of bytes after 200 steps, whose 16 candidates held three quarters of `p`, the cosine
    with the plain gradient was 0.80 at alpha 0.3. So this is the control for choosing among the same candidates, and
    the exact null control with `candidates` the size of the vocabulary.
    """

    kind: Literal["self_distillation"] = "self_distillation"
    facts: ClassVar[Facts] = Facts(
        answers="target: null control, what do targets do that only repeat the learner's own predictions?",
        overhead="a product with the output layer and the K largest logits of every token",
    )

    def spread(self, log_probabilities: Tensor) -> Tensor:
        return log_probabilities.softmax(-1)
