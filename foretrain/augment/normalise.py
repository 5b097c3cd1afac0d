"""Pixels as the numbers that a model reads: the one rule for every model, objective and task."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN = 0.5
STD = 0.5
"""Values in [0, 1] become (value - mean) / std, in every channel and of every corpus."""


def unit(pixels: Tensor) -> Tensor:
    """Pixels uint8 as float32 in [0, 1]."""
    return pixels.to(torch.float32) / 255


def normalise(values: Tensor) -> Tensor:
    """Values in [0, 1] as a model reads them, in [-1, 1]."""
    return (values - MEAN) / STD
