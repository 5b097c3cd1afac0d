"""Uniform numbers for each row: what makes every augmentation a pure function of (seed, position)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretrain.batch import Batch

Floats = NDArray[np.float64]


def draw(batch: Batch, purpose: str, *shape: int) -> Floats:
    """Uniform numbers in [0, 1), float64 [rows, *shape]: those of a row depend on its place in the stream alone."""
    found = [batch.generator(row, purpose).random(shape) for row in range(batch.rows)]
    return np.stack(found) if found else np.empty((0, *shape))


def between(uniform: Floats, low: float, high: float) -> Floats:
    """Uniform numbers in [0, 1) as numbers in [low, high)."""
    return low + (high - low) * uniform


def tensor(values: Floats) -> Tensor:
    """Numbers as float32."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
