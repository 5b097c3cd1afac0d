"""Weights of units of a batch, each of which stands for some loss tokens: how even they are, and how to even them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Unit = Literal["token", "row"]

_TEMPERINGS = 12
"""Of the interval from 0 to 1 that the power of tempered weights lies in."""


def effective_share(weights: Tensor, counts: Tensor) -> float:
    """Effective sample size as a share of the sample: (sum w)^2 / (n sum w^2), each weight as often as counted."""
    total, first, second = counts.sum(), (weights * counts).sum(), (weights.square() * counts).sum()
    return float(first.square() / (total * second)) if total > 0 else 1.0


def entropy_share(weights: Tensor, counts: Tensor) -> float:
    """exp(entropy) of weights with mean 1 as a share of the sample, each as often as counted; 1: all are equal."""
    return float((-(torch.special.xlogy(weights, weights) * counts).sum() / counts.sum()).exp())


def tempered(make: Callable[[float], Tensor], counts: Tensor, floor: float) -> tuple[Tensor, float]:
    """Weights with an effective share of at least `floor`, and the power in [0, 1] that log weights were shrunk by.

    Args:
        make: weights whose logarithms are shrunk by a power: as they are at 1, all the same at 0.
        counts: how many loss tokens each weight stands for.
        floor: smallest effective share.
    """
    weights = make(1.0)
    if effective_share(weights, counts) >= floor:
        return weights, 1.0
    low, high = 0.0, 1.0
    for _ in range(_TEMPERINGS):
        power = (low + high) / 2
        enough = effective_share(make(power), counts) >= floor
        low, high = (power, high) if enough else (low, power)
    return make(low), low
