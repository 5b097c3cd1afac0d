"""Gradients of a batch beside the step's own, of its mean loss over all ranks; and how a gradient is clipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.vectors import Vector

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.base import Targets
    from foretrain.objectives.outputs import Outputs


def mean_gradient(
    context: Context,
    batch: Batch,
    names: Sequence[str] | None = None,
    targets: Callable[[Outputs, Batch], Targets | None] | None = None,
) -> Vector:
    """The gradient of the mean loss of a prepared batch, over all ranks; see `Learner.gradient_of`.

    Args:
        context: of the run.
        batch: this rank's rows.
        names: parameters to differentiate by; all that are trained by default.
        targets: soft targets from the outputs of some rows; the labels by default.
    """
    total = max(context.group.sum(batch["mask"].sum())[0], 1.0)

    def loss(piece: Batch) -> Tensor:
        outputs = context.objective.forward(context.learner.model, piece)
        soft = None if targets is None else targets(outputs, piece)
        return context.objective.losses(outputs, piece, soft).sum() / total

    names = list(context.weights) if names is None else names
    return context.learner.gradient_of(loss, list(batch.micro(context.micro)), names)[0]


def clip_gradient(gradient: Vector, largest: float | None) -> float:
    """Scale a gradient in place to a global norm of at most `largest`; returns the norm it had."""
    tensors = list(gradient.values())
    total: Any = nn.utils.get_total_norm(tensors)
    norm = float(total.full_tensor() if hasattr(total, "full_tensor") else total)
    if largest is not None and norm > largest:
        torch._foreach_mul_(tensors, largest / norm)
    return norm
