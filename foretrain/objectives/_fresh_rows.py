"""Fresh rows: embeddings of tokens that a model has not seen yet begin as the mean of those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from foretrain.context import Context


@torch.no_grad()
def set_to_mean(context: Context, fresh: Sequence[int], known: NDArray[np.int64]) -> None:
    """Set the embeddings of some tokens to the mean of those of others, live, in a run's own weights.

    A matrix of its own behind the model (untied) is left: tokens that are only read have no part in it.

    Args:
        context: of the run.
        fresh: ids whose rows are set.
        known: ids whose rows are averaged.
    """
    model: Any = context.model
    embedding = model.get_input_embeddings()
    name = next(f"{path}.weight" for path, module in model.named_modules() if module is embedding)
    # One that is not trained has no fp32 master.
    weight: torch.Tensor = context.weights.get(name, embedding.weight)
    whole = (weight.full_tensor() if isinstance(weight, DTensor) else weight).clone()
    whole[list(fresh)] = whole[torch.from_numpy(known).to(whole.device)].mean(0)
    if isinstance(weight, DTensor):
        weight.copy_(distribute_tensor(whole, weight.device_mesh, weight.placements))
    else:
        weight.copy_(whole)
    context.learner.refresh()
