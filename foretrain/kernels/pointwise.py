"""RMSNorm and SwiGLU with hand-written backward passes: fewer walks over memory, less kept for the backward."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, eps):  # type: ignore[no-untyped-def]
        norm = torch.linalg.vector_norm(x, 2, -1, True, dtype=torch.float32)
        rstd = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        return (x.float() * rstd).to(x.dtype).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        x, weight, rstd = ctx.saved_tensors
        normed, grad = x.float() * rstd, grad.float()
        product = grad * normed
        d_weight = product.reshape(-1, x.shape[-1]).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, d_weight, None
        scale = weight.float()
        mean = torch.mv(product.view(-1, x.shape[-1]), scale).div_(x.shape[-1]).view_as(rstd)
        dx = (grad * scale).sub_(normed.mul_(mean)).mul_(rstd)
        return dx.to(x.dtype), d_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``weight * x / sqrt(mean(x^2) + eps)`` over the last dimension, statistics in float32."""
    return _RMSNorm.apply(x, weight, eps)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate, up):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad):  # type: ignore[no-untyped-def]
        gate, up = ctx.saved_tensors
        d_up = F.silu(gate).mul_(grad)
        d_gate = torch.ops.aten.silu_backward(grad * up, gate)
        return d_gate, d_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``; keeps only its two inputs for backward."""
    return _SwiGLU.apply(gate, up)
