"""Outputs: what a forward pass leaves behind, from which losses are made without keeping more logits than needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foretrain.kernels.cross_entropy import IGNORE, keeps_logits, logit_losses, product, rows_per_chunk, token_losses
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
        # The output layer's product, where it was made before the losses need it: a large part of a small model's step.
        self._made: Tensor | None = None

    def logits(self) -> Tensor:
        """Detached logits [rows, length, vocabulary]; made anew at each call."""
        if self._logits is not None:
            return self._logits.detach()
        assert self.hidden is not None and self._head is not None
        with torch.no_grad():
            return nn.functional.linear(self.hidden, *self._layer())

    @torch.no_grad()
    def log_probabilities(self, ids: Tensor) -> Tensor:
        """Detached log-probabilities, float32 [rows, length, K], of candidates `ids` (int64 [rows, length, K])."""
        flat = ids.reshape(-1, ids.shape[-1])
        found = flat.new_empty(flat.shape, dtype=torch.float32)
        for place, logits in self._pieces():
            found[place] = logits.gather(1, flat[place]) - logits.logsumexp(1, keepdim=True)
        return found.reshape(ids.shape)

    @torch.no_grad()
    def candidates(self, labels: Tensor, k: int | None) -> tuple[Tensor, Tensor]:
        """The label of each token and the `k - 1` most likely other tokens, most likely first.

        Args:
            labels: int64 [rows, length].
            k: candidates a token, from 1 to the size of the vocabulary; None: all others, in no order of likelihood,
                for to sort them takes many times as long as all else that is done with them.

        Returns:
            Their ids, int64 [rows, length, k], the label first; and their detached log-probabilities, float32 of the
            same shape, under the whole vocabulary.
        """
        if k is None:
            return self._all_candidates(labels)
        flat = labels.reshape(-1, 1)
        ids = flat.new_empty(flat.shape[0], k)
        found = ids.new_empty(ids.shape, dtype=torch.float32)
        for place, logits in self._pieces():
            own = logits.gather(1, flat[place])
            whole = logits.logsumexp(1, keepdim=True)
            others, numbers = logits.scatter_(1, flat[place], float("-inf")).topk(k - 1, dim=1)
            logits.scatter_(1, flat[place], own)
            ids[place] = torch.cat([flat[place], numbers], 1)
            found[place] = torch.cat([own, others], 1) - whole
        return ids.reshape(*labels.shape, k), found.reshape(*labels.shape, k)

    def _all_candidates(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens by their ids, but that the label and token 0 change places."""
        flat = labels.reshape(-1, 1)
        found = torch.cat([logits.log_softmax(1) for _, logits in self._pieces()])
        ids = torch.arange(found.shape[1], device=flat.device).repeat(flat.shape[0], 1)
        first = found[:, :1].clone()
        found[:, :1] = found.gather(1, flat)
        found.scatter_(1, flat, first)
        ids.scatter_(1, flat, 0)
        ids[:, :1] = flat
        return ids.reshape(*labels.shape, -1), found.reshape(*labels.shape, -1)

    def _pieces(self) -> Iterator[tuple[slice, Tensor]]:
        """Detached float32 logits [n, vocabulary] of some tokens at a time; what is written to them is undone after."""
        states = self._logits if self._logits is not None else self.hidden
        assert states is not None
        flat = states.detach().reshape(-1, states.shape[-1])
        layer = None if self._logits is not None else self._layer()
        rows = rows_per_chunk(flat.shape[-1] if layer is None else layer[0].shape[0], 4)
        made = self._product(flat, layer)
        for start in range(0, flat.shape[0], rows):
            place = slice(start, min(start + rows, flat.shape[0]))
            if layer is None:
                yield place, flat[place].float()
            elif made is None:
                yield place, nn.functional.linear(flat[place], *layer).float()
            else:
                yield place, product(flat[place], *layer, out=made[place]).float()

    def _product(self, flat: Tensor, layer: tuple[Tensor, Tensor | None] | None) -> Tensor | None:
        """Where all logits go if the losses will want them: they then turn this same array into the gradient."""
        assert self.hidden is not None or layer is None
        if layer is None or not (self.hidden is not None and self.hidden.requires_grad):
            return None
        if not keeps_logits(flat.shape[0], layer[0]):
            return None
        self._made = flat.new_empty(flat.shape[0], layer[0].shape[0])
        return self._made

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
        made, self._made = self._made, None
        return token_losses(self.hidden, weight, ids, probabilities, bias=bias, logits=made)

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
