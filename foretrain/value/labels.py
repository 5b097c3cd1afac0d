"""The value of the true tokens alone, for parts that weigh what is there and choose no other targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.learner import transformer_blocks
from foretrain.models.suffix import Suffix
from foretrain.value.primitive import computing_type, first_block, measuring, step_size
from foretrain.vectors import Vector, added

if TYPE_CHECKING:
    from foretrain.context import Context


@torch.no_grad()
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
    learner, objective = context.learner, context.objective
    weights = {name: learner.masters[name].detach() for name in direction}
    pieces = list(batch.micro(context.micro))
    suffix = Suffix(transformer_blocks(learner.model), first_block(context, list(direction)))
    with measuring(learner):
        if step is None:
            step = step_size(weights, direction, computing_type(learner), 2)
        if step == 0:
            return torch.zeros(batch["mask"].shape, device=context.device)

        def known(piece: Batch) -> Tensor:
            return objective.forward(learner.model, piece).log_probabilities(piece["labels"][..., None])[..., 0]

        with learner.at(added(weights, direction, -step)), suffix.recording():
            back = [known(piece) for piece in pieces]
        forth = []
        with learner.at(added(weights, direction, step)):
            for number, piece in enumerate(pieces):
                with suffix.resuming(number):
                    forth.append(known(piece))
    return (torch.cat(back) - torch.cat(forth)) / (2 * step) * batch["mask"]
