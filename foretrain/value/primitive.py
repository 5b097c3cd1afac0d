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

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.learner import Learner, transformer_blocks
from foretrain.models.suffix import Suffix
from foretrain.objectives.outputs import Outputs
from foretrain.vectors import Vector, added, norm

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
    learner, objective = context.learner, context.objective
    weights = {name: learner.masters[name].detach() for name in direction}
    pieces = list(batch.micro(context.micro))
    suffix = Suffix(transformer_blocks(learner.model), first_block(context, list(direction)))
    with torch.no_grad(), measuring(learner):
        if step is None:
            step = step_size(weights, direction, computing_type(learner), sides)
        with suffix.recording():
            chosen = [_forward(context, piece).candidates(piece["labels"], candidates) for piece in pieces]

        def at(moved: float) -> list[Tensor]:
            found = []
            with learner.at(added(weights, direction, moved)):
                for number, (piece, (ids, _)) in enumerate(zip(pieces, chosen, strict=True)):
                    with suffix.resuming(number):
                        found.append(objective.forward(learner.model, piece).log_probabilities(ids))
            return found

        here = [known for _, known in chosen]
        back, forth = (at(-step) if sides == 2 else here), at(step)
        # The step that was made in the numbers of the weights, not the one that was meant, hardly differs in fp32.
        values = [(b - f) / (sides * step) if step else torch.zeros_like(b) for b, f in zip(back, forth, strict=True)]
    mask = batch["mask"][..., None]
    found = torch.cat(values) * mask
    return Values(found[..., 0], torch.cat([ids for ids, _ in chosen]), found, torch.cat(here))


def _forward(context: Context, piece: Batch) -> Outputs:
    return context.objective.forward(context.learner.model, piece)


@contextmanager
def measuring(learner: Learner) -> Iterator[None]:
    """For passes that are compared with one another: eval mode, and fp32 wherever the weights can be had in it."""
    with learner.exact(), learner.evaluating(), learner.autocast():
        yield


def first_block(context: Context, names: Sequence[str]) -> int:
    """The first block that a change of these parameters reaches; as many as there are blocks if it reaches none."""
    listed = list(context.roles)
    numbers = [context.roles[name].block for name in listed]
    inside = [place for place, number in enumerate(numbers) if number is not None]
    if not inside:
        return 0
    # Embeddings and what else is defined before the blocks acts on all of them; a last norm and the head on none.
    in_front = {
        name for place, name in enumerate(listed) if place < inside[0] or context.roles[name].kind == "embedding"
    }
    if in_front.intersection(names):
        return 0
    own = [number for name in names if (number := context.roles[name].block) is not None]
    return min(own, default=1 + max(number for number in numbers if number is not None))


def computing_type(learner: Learner) -> torch.dtype:
    """The type that passes inside `measuring` compute in."""
    return torch.bfloat16 if learner.precision in ("bf16", "autocast") else torch.float32
