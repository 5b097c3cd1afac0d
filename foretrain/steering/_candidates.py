"""Candidate targets: how many a token can have, and how much more or less than it they are worth."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from foretrain.distributed import Group
from foretrain.errors import RequestError

if TYPE_CHECKING:
    from foretrain.context import Context


def check_candidates(kind: str, candidates: int, context: Context) -> None:
    """See that the model predicts tokens, and as many as that.

    Raises:
        RequestError: it predicts fewer, or none.
    """
    vocabulary = getattr(context.learner.model.config, "vocab_size", None)
    if vocabulary is None:
        raise RequestError(
            f"steering '{kind}' spreads targets over tokens, but model '{context.recipe.model.kind}' under objective "
            f"'{context.objective.kind}' predicts none; it is for models of text."
        )
    if candidates > vocabulary:
        raise RequestError(
            f"steering '{kind}': {candidates} candidates a token are more than the {vocabulary} ids of the vocabulary; "
            "lower `candidates`."
        )


def rival_spread(values: Tensor, mask: Tensor, group: Group) -> float:
    """Root mean square, over tokens and ranks, of what rivals are worth more or less than the true token; 0 if none.

    It is the unit of a price on moving weight: most rivals differ from the true token by what one batch's feedback
    happens to hold, and a price of some of these spreads keeps such differences from being followed.

    Args:
        values: float32 [rows, length, K], of the candidates, the true token first.
        mask: [rows, length], tokens that count.
        group: of the run.
    """
    rivals = (values[..., 1:] - values[..., :1]).square().mean(-1)
    total, count = group.sum((rivals * mask).sum(), mask.sum())
    return math.sqrt(total / count) if count else 0.0
