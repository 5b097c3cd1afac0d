"""RMSNorm and SwiGLU equal their definitions, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foretrain.kernels.pointwise import rms_norm, swiglu


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()


def gradients(out: Tensor, *leaves: Tensor) -> list[Tensor]:
    upstream = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * upstream).sum(), leaves)]


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16), (1, 1, 1)])
def test_rms_norm(shape: tuple[int, ...]) -> None:
    x, weight = randn(*shape), randn(shape[-1])
    plain = weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    for ours, theirs in zip(gradients(rms_norm(x, weight, 1e-5), x, weight), gradients(plain, x, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_rms_norm_with_one_side_frozen(frozen: str) -> None:
    x, weight = randn(4, 16), randn(16)
    (x if frozen == "x" else weight).requires_grad_(False)
    leaf = weight if frozen == "x" else x
    plain = weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    for ours, theirs in zip(gradients(rms_norm(x, weight, 1e-5), leaf), gradients(plain, leaf), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_rms_norm_keeps_its_statistics_in_float32() -> None:
    x, weight = randn(3, 512, dtype=torch.bfloat16), torch.ones(512, dtype=torch.bfloat16)
    ours = rms_norm(x * 1e4, weight, 1e-5)
    truth = functional.rms_norm((x * 1e4).float(), (512,))
    assert ours.dtype == torch.bfloat16 and torch.isfinite(ours).all()
    assert (ours.float() - truth).abs().max() < 0.02 * truth.abs().max()


def test_swiglu() -> None:
    gate, up = randn(3, 7, 5), randn(3, 5, 7).detach().transpose(1, 2).requires_grad_()
    plain = gate * torch.sigmoid(gate) * up
    for ours, theirs in zip(gradients(swiglu(gate, up), gate, up), gradients(plain, gate, up), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
