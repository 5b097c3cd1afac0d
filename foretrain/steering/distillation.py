"""Learn from a teacher's distributions, asked at every step."""

from __future__ import annotations

from typing import ClassVar, Literal

from foretrain.parts import Facts
from foretrain.steering._teaching import TaughtByModel


class Distillation(TaughtByModel):
    """Knowledge distillation: soft targets from a trained model with the same tokenizer.

    The loss is the cross-entropy to `q = (1 - w) onehot + w r`, which has the gradient of
    `(1 - w) CE(label) + w KL(r || p)`. `r` are the teacher's K likeliest tokens, with the true one always among them,
    at a temperature that the learner does not share (the classical form divides its logits too). With K the size of
    the vocabulary nothing of the teacher is left out; with fewer, `r` sums to 1 over those, and is sharper than the
    teacher is. The teacher reads the rows that the learner reads, so it has the same context, and rows that other parts
    have replaced are taught like any other.

    An ensemble is a teacher like any other: its members' logits are averaged, and all of them run at each step.
    """

    kind: Literal["distillation"] = "distillation"
    facts: ClassVar[Facts] = Facts(
        paper="Distilling the Knowledge in a Neural Network",
        arxiv="1503.02531",
        year=2015,
        answers="target: what does a trained model hold for likely next?",
        overhead="a forward pass of the teacher (a third of its own step), and the K largest logits of every token",
    )
