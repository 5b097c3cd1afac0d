"""What masks do to images, and what is asked of them beside their use."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from foretrain.augment.blur import blur


def blurred(images: Tensor, share: float) -> Tensor:
    """Images [rows, channels, height, width] after a Gaussian blur whose width is a share of the shorter side."""
    width = share * min(images.shape[-2:])
    return blur(images, np.full(len(images), width), width)


def masked(images: Tensor, masks: Tensor, soft: Tensor) -> Tensor:
    """`masks * images + (1 - masks) * soft`, bit for bit the images where a mask is 1."""
    return images + (1 - masks) * (soft - images)


def keep_penalty(masks: Tensor, keep: float) -> Tensor:
    """How far masks [rows, 1, height, width] are from keeping a share `keep`: (mean - keep)^2, averaged over masks."""
    return ((masks.mean((1, 2, 3)) - keep) ** 2).mean()


def total_variation(masks: Tensor) -> Tensor:
    """Mean difference of neighbours in masks [rows, 1, height, width]: mean |dx| + mean |dy|."""
    return masks.diff(dim=-1).abs().mean() + masks.diff(dim=-2).abs().mean()
