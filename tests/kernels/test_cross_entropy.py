"""The fused linear cross-entropy equals torch's own, in value and gradient, in every mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foretrain.kernels.cross_entropy import IGNORE, logit_losses, token_losses

ROWS, LENGTH, WIDTH, VOCABULARY, K = 3, 17, 24, 53, 5


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(ROWS, LENGTH, WIDTH, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, requires_grad=True)
    bias = torch.randn(VOCABULARY, generator=generator, requires_grad=True)
    labels = torch.randint(VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels[torch.rand(ROWS, LENGTH, generator=generator) < 0.3] = IGNORE
    upstream = torch.rand(ROWS, LENGTH, generator=generator)
    return hidden, weight, bias, labels, upstream


def with_gradients(losses: Tensor, upstream: Tensor, *leaves: Tensor) -> list[Tensor]:
    return [losses.detach(), *torch.autograd.grad((losses * upstream).sum(), leaves)]


@pytest.mark.parametrize("save", [True, False])
@pytest.mark.parametrize("chunk", [None, 7, 64])
@pytest.mark.parametrize("biased", [False, True])
def test_hard_targets(save: bool, chunk: int | None, biased: bool) -> None:
    hidden, weight, bias, labels, upstream = inputs()
    leaves = [hidden, weight, bias] if biased else [hidden, weight]
    logits = hidden @ weight.T + (bias if biased else 0)
    plain = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(ROWS, LENGTH)
    fused = token_losses(hidden, weight, labels, bias=bias if biased else None, save_logits=save, chunk=chunk)
    for ours, theirs in zip(
        with_gradients(fused, upstream, *leaves), with_gradients(plain, upstream, *leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("save", [True, False])
def test_soft_targets(save: bool) -> None:
    hidden, weight, bias, _, upstream = inputs()
    ids = torch.stack([torch.randperm(VOCABULARY)[:K] for _ in range(ROWS * LENGTH)]).view(ROWS, LENGTH, K)
    probs = torch.rand(ROWS, LENGTH, K).softmax(-1)
    probs[0, :4] = 0
    dense = torch.zeros(ROWS, LENGTH, VOCABULARY).scatter(-1, ids, probs)
    plain = -(dense * (hidden @ weight.T + bias).log_softmax(-1)).sum(-1)
    fused = token_losses(hidden, weight, ids, probs, bias=bias, save_logits=save, chunk=8)
    from_logits = logit_losses(hidden @ weight.T + bias, ids, probs)
    wanted = with_gradients(plain, upstream, hidden, weight, bias)
    for losses in (fused, from_logits):
        for ours, theirs in zip(with_gradients(losses, upstream, hidden, weight, bias), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_all_targets_ignored_gives_no_loss_and_no_gradient() -> None:
    hidden, weight, _, labels, upstream = inputs()
    losses, *gradients = with_gradients(
        token_losses(hidden, weight, torch.full_like(labels, IGNORE)), upstream, hidden, weight
    )
    assert losses.abs().sum() == 0 and all(gradient.abs().sum() == 0 for gradient in gradients)


def test_large_logits_stay_finite() -> None:
    hidden, weight, _, labels, _ = inputs()
    assert token_losses(hidden * 1e4, weight, labels.clamp_min(0)).isfinite().all()


def test_bf16_is_close_to_fp32() -> None:
    hidden, weight, _, labels, upstream = inputs()
    exact = with_gradients(token_losses(hidden, weight, labels), upstream, hidden, weight)
    low_h, low_w = hidden.detach().bfloat16().requires_grad_(), weight.detach().bfloat16().requires_grad_()
    low = with_gradients(token_losses(low_h, low_w, labels), upstream, low_h, low_w)
    for ours, theirs in zip(low, exact, strict=True):
        assert (ours.float() - theirs).norm() / theirs.norm() < 0.02
