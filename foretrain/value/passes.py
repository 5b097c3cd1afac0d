"""Forward passes of one batch that are compared with one another, at weights that lie along one direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch

from foretrain.batch import Batch
from foretrain.learner import Learner, transformer_blocks
from foretrain.models.suffix import Suffix
from foretrain.objectives.outputs import Outputs
from foretrain.vectors import Vector, added

if TYPE_CHECKING:
    from foretrain.context import Context

Read = TypeVar("Read")


class Passes:
    """The first pass runs the whole model; those after it only the blocks from the first one that is moved.

    Args:
        context: of the run.
        batch: this rank's rows, prepared; they are taken micro-batch by micro-batch.
        direction: that the weights are moved along.
    """

    def __init__(self, context: Context, batch: Batch, direction: Vector) -> None:
        self._context, self._direction = context, direction
        self._pieces = list(batch.micro(context.micro))
        self._suffix = Suffix(transformer_blocks(context.learner.model), first_block(context, list(direction)))
        self._recorded = False
        self.weights: Vector = {name: context.learner.masters[name].detach() for name in direction}

    def at(self, moved: float, read: Callable[[int, Batch, Outputs], Read]) -> list[Read]:
        """What `read(number, micro-batch, outputs)` makes of each micro-batch, weights moved so far along it.

        To be called inside `measuring`, which all passes of a comparison share.
        """
        learner, found = self._context.learner, []
        with learner.at(added(self.weights, self._direction, moved)) if moved else nullcontext():
            for number, piece in enumerate(self._pieces):
                with self._suffix.resuming(number) if self._recorded else self._suffix.recording():
                    found.append(read(number, piece, self._context.objective.forward(learner.model, piece)))
        self._recorded = True
        return found


@contextmanager
def measuring(learner: Learner) -> Iterator[None]:
    """For passes that are compared: eval mode, no graph, and fp32 wherever the weights can be had in it."""
    with torch.no_grad(), learner.exact(), learner.evaluating(), learner.autocast():
        yield


def computing_type(learner: Learner) -> torch.dtype:
    """The type that passes inside `measuring` compute in."""
    return torch.bfloat16 if learner.precision in ("bf16", "autocast") else torch.float32


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
