"""Value-based pre-training: a designer, trained by feedback, rewrites what the learner predicts (arXiv 2601.22108)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from foretrain.parts import Facts
from foretrain.steering._target_design import TargetDesign


class VPretraining(TargetDesign):
    """A small decoder gives every token a soft target over the true token and the learner's likeliest others.

    The learner only ever takes steps on the unlabelled stream. Every `every` steps the designer is moved so that the
    learner's gradient on the designed task points more along the gradient of the feedback loss: it maximises the value
    `V = mean_t sum_v q_t(v) value_t(v)`, in which the values are one directional derivative (`value/primitive.py`) and
    q is the designer's, so no second derivative is needed. The targets of the same batch are then made anew with the
    moved designer. `alpha_max: 0` is plain training.

    Decided here, where the paper says nothing: the designer begins with the learner's own distribution; in the burn-in
    the run is plain; the feedback gradient is brought to length 1; a meta step looks at the first `rows` of the batch;
    the penalty is the mean weight moved away from the true token.
    """

    kind: Literal["v_pretraining"] = "v_pretraining"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="target: what should be predicted, so that the feedback gets better?",
        overhead="the designer's forward pass each step; each `every` steps three more passes over some rows",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"alpha_max": 0.0}
