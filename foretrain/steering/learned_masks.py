"""Masks for self-distillation, learned so that the learner's own gradient serves a downstream task."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foretrain.parts import Facts
from foretrain.steering._mask_design import MaskDesign


class LearnedMasks(MaskDesign):
    """Hides of each global crop what a small network says, so that self-supervised steps lower the feedback loss.

    The direction is the gradient of the feedback loss on labelled images. To first order a step of the learner lowers
    that loss by the learning rate times the inner product of the two gradients, so masks are learned that raise it.
    Labels never train the learner.
    """

    kind: Literal["learned_masks"] = "learned_masks"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="view: which parts of an image should the learner not see?",
        overhead="a small network on every global crop; in meta steps a gradient's gradient on a share of the images",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"strength": 0.0}
