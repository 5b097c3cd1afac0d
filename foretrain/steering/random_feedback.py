"""A null control: targets designed for a random direction in place of the feedback gradient."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.steering._target_design import TargetDesign
from foretrain.value.measuring import Direction


class RandomFeedback(TargetDesign):
    """`v_pretraining` with a random direction, drawn anew at each meta step, in place of the feedback gradient.

    Each tensor of the direction is as long as the feedback gradient's own, so the control costs what the method costs
    and moves the designer as far; only the feedback is missing. What it gains over plain training, soft targets of
    this kind gain without feedback.
    """

    kind: Literal["random_feedback"] = "random_feedback"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="target: null control of v_pretraining, what do designed targets do without feedback?",
        overhead="that of v_pretraining",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"alpha_max": 0.0}

    def direction(self, name: str, step: int) -> Direction:
        """A random direction, tensor by tensor as long as the feedback gradient."""
        return super().direction(name, step).random(seed_from(self._context.seed, "random feedback", name, step))
