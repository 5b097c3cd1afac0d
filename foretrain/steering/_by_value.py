"""What parts share that decide by the value of the batch's own tokens for a feedback set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.models.roles import select
from foretrain.section import Count
from foretrain.steering._whole_batch import WholeBatch
from foretrain.value.measuring import feedback_direction
from foretrain.value.picture import value_picture
from foretrain.value.primitive import label_values, token_values

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.pictures import Picture


class ByValue(WholeBatch):
    """Every few steps, before the step, tokens of the batch are valued at the weights of the moment."""

    modality: ClassVar[str] = "text"

    feedback: str
    """Name of a feedback set of the recipe."""
    every: Count = Field(4, gt=0)
    """Value is measured in one of this many steps."""
    parameters: str = "last:2"
    """Parameters that value is measured in: `last:2`, `last:1+norms+head`, `all`, `re:...` and the like; where they
    lie in the last blocks, only those run again."""
    items: Count = Field(16, gt=0)
    """Feedback items of a measurement, over all ranks, drawn anew each time."""
    precondition: bool = False
    """Divide the feedback gradient by the root of Adam's second moments, number by number: the value of a step as the
    optimizer makes it, rather than of gradient descent. The first step, before there are any, takes the plain one."""

    _names: list[str] = PrivateAttr(default_factory=list)

    def setup(self, context: Context) -> None:
        """Open the feedback set and find the parameters.

        Raises:
            RequestError: there is no such set, nothing in it, or no such parameters.
        """
        super().setup(context)
        context.feedback(self.feedback)
        self._names = select(context.roles, self.parameters)

    def step_kind(self, step: int) -> str:
        """Steps that measure value, and others."""
        return "value" if self.measures(step) else ""

    def measures(self, step: int) -> bool:
        """Whether value is measured in this step."""
        return step % self.every == 0

    def values(self, batch: Batch) -> Tensor | None:
        """The value of each true token, float32 [rows, length], 0 where the mask is off; None if the feedback failed.

        In nats of feedback loss per unit of (learning rate times gradient), with the feedback gradient at length 1.
        Every rank has as many rows as the others.
        """
        found = feedback_direction(
            self._context, self.feedback, batch.step, self.items, self._names, precondition=self.precondition
        )
        if not math.isfinite(found.norm):
            return None
        made = label_values(self._context, batch, found.vector)
        finite = torch.isfinite(made)
        if not bool(finite.all()):
            self._context.warn(f"steering '{self.kind}': the value of some tokens was not finite; it was taken as 0.")
        return torch.where(finite, made, 0.0)

    def picture(self, batch: Batch) -> Picture | None:
        """Tokens by their value for the feedback."""
        context = self._context
        found = feedback_direction(context, self.feedback, context.total_steps, self.items, self._names)
        return value_picture(context, batch, token_values(context, batch, found.vector), title="What tokens are worth")
