"""Slow and exact ways to the same values, for tests and for the study of the step size in `docs/value.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from foretrain.kernels.accelerate import restore
from foretrain.vectors import Vector

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def token_gradients(losses: Callable[[], Tensor], parameters: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """The inner product of each token's own gradient with a direction: one backward pass per token.

    Args:
        losses: makes the losses [...] of all tokens, with a graph.
        parameters: what is differentiated by.
        direction: one tensor per parameter.

    Returns:
        float64, of the shape of the losses.
    """
    made = losses()
    found = []
    for loss in made.reshape(-1):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        found.append(sum((g.double() * d.double()).sum() for g, d in zip(gradients, direction, strict=True)))
    return torch.stack([torch.as_tensor(value) for value in found]).reshape(made.shape)


def directional(model: PreTrainedModel, direction: Vector, ids: Tensor) -> Tensor:
    """Forward-mode derivative of the log-probabilities [rows, length, vocabulary] along a direction.

    Fused attention and kernels of our own have no forward-mode derivative, so plain ones take their place.
    """
    plain = restore(model)
    weights = {name: parameter.detach() for name, parameter in plain.named_parameters() if name in direction}

    def log_probabilities(moved: dict[str, Tensor]) -> Tensor:
        logits = functional_call(plain, moved, kwargs={"input_ids": ids, "use_cache": False}).logits
        return logits.log_softmax(-1)

    with sdpa_kernel(SDPBackend.MATH):
        return jvp(log_probabilities, (weights,), (dict(direction),))[1]


def sample_gradients(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], names: Sequence[str], ids: Tensor
) -> Vector:
    """The gradient of every sample's own loss, by vmap: name to [samples, ...].

    Args:
        model: a `transformers` model; kernels of our own are put aside.
        loss: of one sample from its logits [length, vocabulary] and its ids [length].
        names: parameters to differentiate by.
        ids: int64 [samples, length].
    """
    plain = restore(model)
    weights = {name: parameter.detach() for name, parameter in plain.named_parameters() if name in set(names)}

    def one(moved: dict[str, Tensor], row: Tensor) -> Tensor:
        output = functional_call(plain, moved, kwargs={"input_ids": row[None], "use_cache": False})
        return loss(output.logits[0], row)

    with sdpa_kernel(SDPBackend.MATH):
        return dict(vmap(grad(one), in_dims=(None, 0))(weights, ids))
