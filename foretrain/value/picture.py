"""The picture of values: text whose tokens are coloured by what learning them does for the feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from foretrain.batch import Batch
from foretrain.objectives.base import Targets
from foretrain.pictures import Picture, token_picture
from foretrain.value.primitive import Values

if TYPE_CHECKING:
    from foretrain.context import Context


def value_picture(
    context: Context, batch: Batch, values: Values, *, title: str, targets: Tensor | None = None
) -> Picture:
    """Validation text by the value of its tokens, and the targets a designer makes of them.

    Args:
        context: of the run.
        batch: prepared rows.
        values: of the batch, along a direction of unit length.
        title: heading of the picture.
        targets: float32 [rows, length, K], probabilities of the candidates that `values` lists.
    """
    caption = (
        "Colour: by how much a learner step towards this token would lower the feedback loss (first order, per unit of "
        "learning rate, along the feedback gradient at length 1)."
    )
    return token_picture(
        batch,
        values.labels,
        context.tokenizer,
        title=title,
        caption=caption,
        low_label="a step towards it raises the feedback loss",
        high_label="a step towards it lowers the feedback loss",
        targets=None if targets is None else Targets(values.ids, targets),
    )
