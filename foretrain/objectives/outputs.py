"""Outputs: what a forward pass leaves behind, from which losses are made without keeping more logits than needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foretrain.kernels.cross_entropy import IGNORE, logit_losses, token_losses
from foretrain.objectives.base import Targets


class Outputs:
    """Hidden states and the output layer that would turn them into logits, or the logits themselves.

    Attributes:
        hidden: [rows, length, width], what the output layer reads; None where the model's logits are more than a linear
            layer of it.
    """

    def __init__(
        self, *, hidden: Tensor | None = None, head: nn.Module | None = None, logits: Tensor | None = None
    ) -> None:
        self.hidden = hidden
        self._head = head
        self._logits = logits

    def logits(self) -> Tensor:
        """Detached logits [rows, length, vocabulary]; made anew at each call."""
        if self._logits is not None:
            return self._logits.detach()
        assert self.hidden is not None and self._head is not None
        with torch.no_grad():
            return nn.functional.linear(self.hidden, *self._layer())

    def token_losses(self, labels: Tensor, mask: Tensor, targets: Targets | None = None) -> Tensor:
        """Cross-entropy [rows, length] in nats, float32: to `labels`, or to soft `targets` where they are given.

        0 where the mask is off, and differentiable once.
        """
        if targets is None:
            ids, probabilities = labels.masked_fill(~mask, IGNORE), None
        else:
            ids, probabilities = targets.ids, targets.probabilities * mask[..., None]
        if self._logits is not None:
            return logit_losses(self._logits, ids, probabilities)
        assert self.hidden is not None and self._head is not None
        weight, bias = self._layer()
        return token_losses(self.hidden, weight, ids, probabilities, bias=bias)

    def _layer(self) -> tuple[Tensor, Tensor | None]:
        assert self.hidden is not None and self._head is not None
        weight, bias = self._head.weight, self._head.bias
        assert isinstance(weight, Tensor)
        # Under autocast the weights are fp32 and the hidden states bf16.
        return weight.to(self.hidden.dtype), bias.to(self.hidden.dtype) if isinstance(bias, Tensor) else None


@contextmanager
def _without(head: nn.Module) -> Iterator[None]:
    head.forward = _identity  # type: ignore[method-assign]
    try:
        yield
    finally:
        del head.forward


def _identity(hidden: Tensor) -> Tensor:
    return hidden


def run_model(model: nn.Module, **inputs: Any) -> Outputs:
    """Run a `transformers` language model up to its output layer.

    Where its logits are that layer's plain product (checked once per model), the product is left to the losses, which
    can make it in pieces; models that scale or cap their logits afterwards give the logits as they are.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    if has_plain_head(model):
        with _without(head):
            return Outputs(hidden=model(use_cache=False, **inputs).logits, head=head)
    return Outputs(logits=model(use_cache=False, **inputs).logits)


def has_plain_head(model: nn.Module) -> bool:
    """Whether the model's logits are its output layer's plain product, seen on four tokens; remembered on the model."""
    known: bool | None = getattr(model, "_foretrain_plain_head", None)
    if known is None:
        known = _logits_are_product(model, model.get_output_embeddings())  # type: ignore[operator]
        model._foretrain_plain_head = known  # type: ignore[assignment]
    return known


def _logits_are_product(model: nn.Module, head: nn.Module | None) -> bool:
    if not isinstance(head, nn.Linear):
        return False
    training = model.training
    model.eval()
    with torch.no_grad():
        ids = torch.arange(4, device=head.weight.device)[None] % head.out_features
        full = model(input_ids=ids, use_cache=False).logits
        with _without(head):
            hidden = model(input_ids=ids, use_cache=False).logits
        known = hidden.shape[-1] == head.in_features and torch.equal(full, head(hidden))
    model.train(training)
    return known
