"""The value primitive: what a learner step on each token, or on each candidate target, would do for the feedback.

A gradient step of size eta on the loss of token t with target v moves the weights by `-eta * grad(-log p_t(v))`. To
first order that lowers a feedback loss with gradient g by `eta * value`, where

    value_t(v) = < grad(-log p_t(v)), g > = - d/de log p_t(v) at theta + e g

so one derivative along g, a single direction, gives the value of every token, sample, domain and candidate target. The
derivative is a difference of forward passes from a saved copy of the weights: (log p at theta - h) - (log p at
theta + h), over 2 h |g|. Where g lies in the last blocks only those run again (`models/suffix.py`).

The gradient of a cross-entropy to soft targets q is linear in q, so the value of a whole task is the mean over tokens
of the expected value of its target, `sum_v q_t(v) value_t(v)`: what a designer of targets maximises (arXiv 2601.22108)
needs no second derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.objectives.outputs import Outputs
from foretrain.value.passes import Passes, computing_type, measuring
from foretrain.vectors import Vector, norm

if TYPE_CHECKING:
    from foretrain.context import Context

Sides = Literal[1, 2]


@dataclass(frozen=True)
class Values:
    """Values per token of a batch, float32; 0 where the mask is off.

    With a direction of unit length they are in nats of feedback loss per unit of learning rate times gradient.

    Attributes:
        labels: [rows, length], of the true tokens.
        ids: int64 [rows, length, K], candidate targets, the true token first.
        candidates: [rows, length, K], their values.
        log_probabilities: [rows, length, K], what the learner makes of them at today's weights.
    """

    labels: Tensor
    ids: Tensor
    candidates: Tensor
    log_probabilities: Tensor


def step_size(weights: Vector, direction: Vector, dtype: torch.dtype, sides: Sides) -> float:
    """The size of the step along `direction` at which a difference is most exact, as measured (`docs/value.md`).

    Relative to the weights it moves: with two sides the error of the formula falls with the square of the step, with
    one side with the step itself, and that of rounding rises with its inverse.
    """
    eps = torch.finfo(dtype).eps
    relative = eps ** (1 / 3) / 40 if sides == 2 else eps ** (1 / 2) / 30
    length = norm(direction)
    return relative * norm(weights) / length if length > 0 else 0.0


def token_values(
    context: Context,
    batch: Batch,
    direction: Vector,
    *,
    candidates: int = 1,
    sides: Sides = 2,
    step: float | None = None,
) -> Values:
    """The value of the true tokens of a batch and of the learner's most likely others.

    Args:
        context: of the run.
        batch: this rank's rows, prepared.
        direction: the gradient of the feedback loss, over any of the trained parameters; usually of unit length.
        candidates: targets per token, the true one included.
        sides: 2: the weights are moved both ways, which costs two passes and is the more exact; 1: only forth.
        step: how far along `direction`; unset: what is most exact.

    Costs a forward pass of the batch (which chooses the candidates) and one or two of the blocks from the first one
    that `direction` lies in.
    """
    passes = Passes(context, batch, direction)
    with measuring(context.learner):
        if step is None:
            step = step_size(passes.weights, direction, computing_type(context.learner), sides)
        chosen = passes.at(0.0, lambda _, piece, outputs: outputs.candidates(piece["labels"], candidates))

        def known(number: int, piece: Batch, outputs: Outputs) -> Tensor:
            return outputs.log_probabilities(chosen[number][0])

        here = [found for _, found in chosen]
        back = passes.at(-step, known) if sides == 2 else here
        values = _slope(back, passes.at(step, known), sides * step) * batch["mask"][..., None]
    return Values(values[..., 0], torch.cat([ids for ids, _ in chosen]), values, torch.cat(here))


def label_values(context: Context, batch: Batch, direction: Vector, *, step: float | None = None) -> Tensor:
    """The value of each true token, float32 [rows, length], 0 where the mask is off: `token_values(...).labels`.

    Candidates would have to be chosen at today's weights; the true tokens are known. So there is no pass at those, and
    the first of the two passes beside them leaves the states in front of the blocks that move: a forward pass of the
    batch, and one of its last blocks.

    Args:
        context: of the run.
        batch: this rank's rows, prepared.
        direction: the gradient of the feedback loss, over any of the trained parameters; usually of unit length.
        step: how far the weights are moved both ways along `direction`; unset: what is most exact.
    """
    passes = Passes(context, batch, direction)

    def known(number: int, piece: Batch, outputs: Outputs) -> Tensor:
        return outputs.log_probabilities(piece["labels"][..., None])[..., 0]

    with measuring(context.learner):
        if step is None:
            step = step_size(passes.weights, direction, computing_type(context.learner), 2)
        return _slope(passes.at(-step, known), passes.at(step, known), 2 * step) * batch["mask"]


def _slope(back: list[Tensor], forth: list[Tensor], apart: float) -> Tensor:
    """How much lower log-probabilities are forth than back, over the distance; 0 where there was no step to make."""
    # The step that was made in the numbers of the weights, not the one that was meant, hardly differs in fp32.
    difference = torch.cat(back) - torch.cat(forth)
    return difference / apart if apart else torch.zeros_like(difference)
