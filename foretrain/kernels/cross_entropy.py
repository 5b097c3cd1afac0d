"""Linear projection + cross-entropy in one differentiable step, one loss per token.

The plain way (``cross_entropy(hidden @ weight.T, targets)``) walks over the full ``[N, V]`` logits
matrix a dozen times: float copy, log-softmax, its backward, the copy back, the loss scaling. Here
the logits of a few rows at a time are turned, while they are still in cache, into the *unit
gradient* ``softmax - target`` and that is the only ``[N, V]`` array kept. A per-token upstream
gradient ``g`` never has to touch it, because it factors out of both products::

    dHidden = g * (unit @ weight)          dWeight = unit.T @ (g * hidden)

Losses and log-sum-exp are computed in float32 from the logits as the matmul produced them, with the
usual subtraction of the row maximum.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORE = -100
_CHUNK_BYTES = 2 << 20  # logits of one row block: stays in L2/L3 between the passes over it
_SAVE_LIMIT_BYTES = 1 << 28  # keep the [N, V] unit gradient up to here, recompute it beyond


def rows_per_chunk(vocab: int, itemsize: int) -> int:
    """Rows of logits that are worked on together: as many as stay in the cache."""
    return max(128, _CHUNK_BYTES // (vocab * itemsize) // 32 * 32)


def _chunk(logits: Tensor, targets: Tensor, probs: Tensor | None, want_grad: bool) -> Tensor:
    """Losses (float32) of one block; if ``want_grad``, ``logits`` become the unit gradient in place."""
    log_p = torch.log_softmax(logits if logits.dtype == torch.float32 else logits.float(), -1)
    index = targets[:, None] if probs is None else targets
    picked = log_p.gather(1, index)
    if want_grad:
        torch.softmax(logits, -1, out=logits)
        if probs is None:
            # expm1 keeps p - 1 exact where a bf16 softmax close to 1 would not.
            logits.scatter_(1, index, picked.expm1().to(logits.dtype))
        else:
            logits.mul_(probs.sum(1, keepdim=True).to(logits.dtype))
            logits.scatter_add_(1, index, probs.neg().to(logits.dtype))
    return -picked[:, 0] if probs is None else -(probs * picked).sum(1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        probs: Tensor | None,
        chunk: int,
        save: bool,
        made: Tensor | None,
    ) -> Tensor:
        n, vocab = hidden.shape[0], weight.shape[0]
        save = save and any(ctx.needs_input_grad[:3])
        losses = hidden.new_empty(n, dtype=torch.float32)
        made = made if save else None
        buffer = made if made is not None else hidden.new_empty(n if save else min(chunk, n), vocab)
        for a in range(0, n, chunk):
            b = min(a + chunk, n)
            logits = buffer[a:b] if save else buffer[: b - a]
            if made is None:
                product(hidden[a:b], weight, bias, logits)
            losses[a:b] = _chunk(logits, targets[a:b], None if probs is None else probs[a:b], save)
        ctx.chunk = chunk
        ctx.save_for_backward(hidden, weight, bias, targets, probs, buffer if save else None)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, probs, unit = ctx.saved_tensors
        need_h, need_w, need_b = ctx.needs_input_grad[:3]
        scale = grad.float()[:, None]
        d_hidden = torch.empty_like(hidden) if need_h else None
        n = hidden.shape[0]
        step = n if unit is not None else ctx.chunk
        # Several blocks are summed in float32: bf16 would round once per block.
        d_weight = torch.zeros_like(weight, dtype=torch.float32 if step < n else None) if need_w else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if need_b else None
        buffer = hidden.new_empty(min(step, n), weight.shape[0]) if unit is None else None
        for a in range(0, n, max(step, 1)):
            b = min(a + step, n)
            if buffer is not None:
                block = product(hidden[a:b], weight, bias, buffer[: b - a])
                _chunk(block, targets[a:b], None if probs is None else probs[a:b], True)
            else:
                block = unit
            if d_hidden is not None:
                torch.mm(block, weight, out=d_hidden[a:b]).mul_(scale[a:b])
            if d_weight is not None:
                part = block.t() @ (hidden[a:b] * scale[a:b]).to(hidden.dtype)
                d_weight = part if step >= n else d_weight.add_(part)
            if d_bias is not None:
                d_bias += torch.mv(block.t(), scale[a:b, 0].to(block.dtype))
        d_weight = None if d_weight is None else d_weight.to(weight.dtype)
        d_bias = None if d_bias is None else d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None, None


def product(hidden: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """`hidden @ weight.T + bias`, written to `out`."""
    if bias is None:
        return torch.mm(hidden, weight.t(), out=out)
    return torch.addmm(bias, hidden, weight.t(), out=out)


def token_losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    probs: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    save_logits: bool | None = None,
    chunk: int | None = None,
    logits: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` against targets, one float32 loss per token.

    The result can be weighted per token before it is reduced. Rows that count nothing are not computed.

    Args:
        hidden: [..., D], float32 or bfloat16.
        weight: [V, D] of the same dtype.
        targets: int64 class ids [...], where `IGNORE` gives loss 0 and no gradient; or, with `probs`, the ids of sparse
            soft targets [..., K], where an id below 0 counts nothing.
        probs: [..., K]; the loss is then the sum over k of `probs_k * (logsumexp - logit_k)`.
        bias: [V] of the same dtype, or None.
        save_logits: keep one [N, V] array between forward and backward (fast), or compute the logits a second time
            (memory of one block); None decides by size.
        chunk: rows per block; None decides by size.
        logits: [N, V], where somebody has made them already; they are overwritten.
    """
    shape, dim = hidden.shape[:-1], hidden.shape[-1]
    hidden = hidden.reshape(-1, dim)
    targets, probs, live = _flat_targets(targets, probs, hidden.shape[0])
    index = None if bool(live.all()) else live.nonzero()[:, 0]
    if index is not None:
        hidden, targets = hidden[index], targets[index]
        probs = None if probs is None else probs[index]
        logits = None if logits is None else logits[index]
    if save_logits is None:
        save_logits = keeps_logits(hidden.shape[0], weight)
    if chunk is None:
        chunk = rows_per_chunk(weight.shape[0], weight.element_size())
        chunk = chunk if save_logits else max(chunk, 512)
    losses: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, probs, chunk, save_logits, logits)
    if index is not None:
        losses = losses.new_zeros(live.shape[0]).index_copy(0, index, losses)
    return losses.reshape(shape)


def keeps_logits(tokens: int, weight: Tensor) -> bool:
    """Whether the logits of so many tokens are kept between forward and backward, rather than made again."""
    return tokens * weight.shape[0] * weight.element_size() <= _SAVE_LIMIT_BYTES


def logit_losses(logits: Tensor, targets: Tensor, probs: Tensor | None = None) -> Tensor:
    """The same losses from logits [..., V] that are already there."""
    shape = logits.shape[:-1]
    log_p = logits.reshape(-1, logits.shape[-1]).float().log_softmax(-1)
    targets, probs, live = _flat_targets(targets, probs, log_p.shape[0])
    if probs is None:
        losses = -log_p.gather(1, targets.clamp_min(0)[:, None])[:, 0]
    else:
        losses = -(probs * log_p.gather(1, targets)).sum(1)
    return losses.masked_fill(~live, 0.0).reshape(shape)


def _flat_targets(targets: Tensor, probs: Tensor | None, rows: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Targets [N] or [N, K], probabilities, and which rows count."""
    if probs is None:
        targets = targets.reshape(-1)
        return targets, None, targets != IGNORE
    targets, probs = targets.reshape(rows, -1), probs.reshape(rows, -1).float()
    probs = probs.masked_fill(targets < 0, 0.0)
    return targets.clamp_min(0), probs, (probs != 0).any(1)
