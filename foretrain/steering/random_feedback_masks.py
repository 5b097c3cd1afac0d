"""A control for learned masks: the same machinery, led by noise in the place of feedback."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.steering._mask_design import MaskDesign
from foretrain.value.measuring import Direction


class RandomFeedbackMasks(MaskDesign):
    """`learned_masks` with a random direction, drawn anew in each meta step, in the place of the feedback gradient.

    In each parameter the direction is as long as the feedback gradient is there. What this control gains over plain
    training is not owed to the feedback.
    """

    kind: Literal["random_feedback_masks"] = "random_feedback_masks"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="control: what do learned masks do when nothing tells them what is useful?",
        overhead="as learned_masks",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"strength": 0.0}

    def direction(self, step: int) -> Direction:
        """A random direction, tensor by tensor as long as the feedback gradient."""
        return super().direction(step).random(seed_from(self._context.seed, self.kind, step))
