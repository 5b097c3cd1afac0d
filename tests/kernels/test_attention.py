"""Blockwise causal attention equals torch's own, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foretrain.kernels.attention import BLOCK, causal_attention

ROWS, DIM = 2, 8


def inputs(length: int, heads: int, shared: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(length)
    shapes = [(ROWS, length, heads, DIM), (ROWS, length, shared, DIM), (ROWS, length, shared, DIM)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def angles(length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, with a period of its own for each pair of features."""
    angle = torch.arange(length, dtype=torch.float64)[:, None] / torch.tensor([1.0, 3.0, 10.0, 30.0] * 2)
    return angle.cos()[None], angle.sin()[None]


def turned(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Each pair (i, i + d/2) of features as a point of the plane, turned by the angle of its place."""
    cos, sin = (each[:, :, None, : DIM // 2] for each in rotary)
    a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def reference(q: Tensor, k: Tensor, v: Tensor, scale: float, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
    if rotary is not None:
        q, k = turned(q, rotary), turned(k, rotary)
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    k, v = (each.repeat_interleave(q.shape[1] // k.shape[1], 1) for each in (k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)


def gradients(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * upstream).sum(), leaves)]


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("length", [1, 2, 37, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_values_and_gradients(length: int, heads: int, shared: int, rotary: bool) -> None:
    leaves = inputs(length, heads, shared)
    turn = angles(length) if rotary else None
    ours = gradients(causal_attention(*leaves, 0.3, turn), leaves)
    theirs = gradients(reference(*leaves, 0.3, turn), leaves)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


def test_the_future_is_not_seen() -> None:
    q, k, v = inputs(BLOCK + 9, 2, 2)
    out = causal_attention(q, k, v, 0.3)
    later = [each.detach().clone() for each in (k, v)]
    for each in later:
        each[:, BLOCK + 3 :] = 1e3
    changed = causal_attention(q, *later, 0.3)
    assert torch.equal(out[:, : BLOCK + 3], changed[:, : BLOCK + 3])
    assert not torch.equal(out[:, BLOCK + 3 :], changed[:, BLOCK + 3 :])


def test_bf16_is_as_near_as_bf16_is() -> None:
    exact = inputs(BLOCK + 9, 4, 2, torch.float32)
    leaves = [each.detach().bfloat16().requires_grad_() for each in exact]
    truth = reference(*[each.float() for each in leaves], 0.3)
    ours = causal_attention(*leaves, 0.3)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - truth).abs().max() < 0.03 * truth.abs().max()


def test_views_of_one_product_are_fine() -> None:
    """GPT-2 hands over slices of one matrix product."""
    fused = torch.randn(ROWS, 21, 3, 2, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fused.requires_grad_()
    leaves = [fused]
    ours = gradients(causal_attention(*fused.unbind(2), 0.5), leaves)
    theirs = gradients(reference(*fused.unbind(2), 0.5), leaves)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
