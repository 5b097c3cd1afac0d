"""Causal attention on the CPU through batched matrix products, with the rotation of queries and keys built in.

The upper triangle is skipped block by block, and the probabilities are kept for the backward pass.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

BLOCK = 128
"""Query rows handled together: keys after a block's last row are never touched."""


@functools.lru_cache(maxsize=8)
def _causal_bias(length: int, dtype: torch.dtype) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> Tensor:
    """``out = x * cos + rotate_half(x) * sin`` with no temporaries (``x`` and ``out`` of any layout)."""
    h = x.shape[-1] // 2
    for lo, hi, sign in ((slice(0, h), slice(h, None), -1), (slice(h, None), slice(0, h), 1)):
        part = out[..., lo]
        torch.mul(x[..., lo], cos[..., lo], out=part)
        part.addcmul_(x[..., hi], sin[..., lo], value=sign)
    return out


def _heads_first(x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
    """``[B, T, H, d] -> [B, H, T, d]`` contiguous, rotated on the way."""
    b, t, h, d = x.shape
    out = x.new_empty(b, h, t, d)
    if rotary is None:
        return out.copy_(x.transpose(1, 2))
    return _rotate(x.transpose(1, 2), *rotary, out)


class _CausalAttention(torch.autograd.Function):
    """Blockwise causal attention through batched matmuls; backward reuses the probabilities."""

    @staticmethod
    def forward(ctx, q, k, v, cos, sin, scale):  # type: ignore[no-untyped-def]
        (b, t, heads, d), kv = q.shape, k.shape[2]
        group = heads // kv
        rotary = None if cos is None else (cos[:, None], sin[:, None])
        qh = _heads_first(q, rotary).view(b * kv, group, t, d)
        kh = _heads_first(k, rotary).view(b * kv, t, d)
        vh = _heads_first(v, None).view(b * kv, t, d)
        out = q.new_empty(b, t, heads, d)
        bias, kept = _causal_bias(t, q.dtype), []
        for i in range(0, t, BLOCK):
            j = min(i + BLOCK, t)
            rows = qh[:, :, i:j].reshape(b * kv, group * (j - i), d)
            mask = bias[i:j, :j].repeat(group, 1)
            p = torch.baddbmm(mask, rows, kh[:, :j].mT, alpha=scale)
            torch.softmax(p, -1, out=p)
            kept.append(p)
            out[:, i:j] = torch.bmm(p, vh[:, :j]).view(b, heads, j - i, d).transpose(1, 2)
        ctx.scale = scale
        ctx.save_for_backward(qh, kh, vh, cos, sin, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        qh, kh, vh, cos, sin, *kept = ctx.saved_tensors
        (b, t, heads, d), (bk, group) = grad.shape, qh.shape[:2]
        gh = _heads_first(grad, None).view_as(qh)
        dq, dk, dv = torch.empty_like(qh), torch.empty_like(kh), torch.empty_like(vh)
        end = t
        for p in reversed(kept):  # the last block reaches every key, so it initialises dk and dv
            i, j = end - p.shape[1] // group, end
            n = group * (j - i)
            g = gh[:, :, i:j].reshape(bk, n, d)
            dp = torch.bmm(g, vh[:, :j].mT)
            torch.ops.aten._softmax_backward_data.out(dp, p, -1, p.dtype, grad_input=dp)
            dp.mul_(ctx.scale)
            dq[:, :, i:j] = torch.bmm(dp, kh[:, :j]).view(bk, group, j - i, d)
            rows = qh[:, :, i:j].reshape(bk, n, d)
            if j == t:
                torch.bmm(dp.mT, rows, out=dk)
                torch.bmm(p.mT, g, out=dv)
            else:
                dk[:, :j] += torch.bmm(dp.mT, rows)
                dv[:, :j] += torch.bmm(p.mT, g)
            end = i

        def back(x: Tensor, h: int, rotary: bool) -> Tensor:
            x, out = x.view(b, h, t, d).transpose(1, 2), grad.new_empty(b, t, h, d)
            # The transpose of a rotation is the rotation by the opposite angle.
            return _rotate(x, cos[:, :, None], -sin[:, :, None], out) if rotary else out.copy_(x)

        rot = cos is not None
        kv = bk // b
        return back(dq, heads, rot), back(dk, kv, rot), back(dv, kv, False), None, None, None


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, rotary: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Causal self-attention; ``q [B, T, H, d]``, ``k``/``v [B, T, KV, d]`` -> ``[B, T, H, d]``.

    ``rotary`` is ``(cos, sin)``, each ``[B or 1, T, d]`` with equal halves, applied to q and k here. ``H`` is a
    multiple of ``KV`` (query head h reads key head h // (H // KV)). Scores are held in q's dtype.
    """
    cos, sin = rotary if rotary is not None else (None, None)
    return _CausalAttention.apply(q, k, v, cos, sin, scale)
