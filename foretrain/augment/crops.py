"""Random resized crops, some of them mirrored, in one pass of bilinear sampling."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn import functional

from foretrain.augment.draws import Floats, between, tensor

RATIO = (3 / 4, 4 / 3)
"""Width over height of a crop, before it is cut at the image."""
NUMBERS = 5
"""Uniform numbers that one crop takes."""


def boxes(uniform: Floats, scale: tuple[float, float], flip: float) -> Floats:
    """Crops as affine maps, from where a pixel of the crop lies to where it lies in the image.

    Args:
        uniform: numbers in [0, 1), [..., 5]: area, ratio, two for the place, mirrored or not.
        scale: range of a crop's area, as a share of the image's; sides are cut at those of the image.
        flip: how often a crop is mirrored from left to right.

    Returns:
        float64 [..., 2, 3]; both images span [-1, 1].
    """
    area, ratio = between(uniform[..., 0], *scale), between(uniform[..., 1], *(math.log(end) for end in RATIO))
    width = np.minimum(np.sqrt(area * np.exp(ratio)), 1.0)
    height = np.minimum(np.sqrt(area * np.exp(-ratio)), 1.0)
    maps = np.zeros((*uniform.shape[:-1], 2, 3))
    maps[..., 0, 0] = np.where(uniform[..., 4] < flip, -width, width)
    maps[..., 1, 1] = height
    maps[..., 0, 2] = between(uniform[..., 2], -1.0, 1.0) * (1 - width)
    maps[..., 1, 2] = between(uniform[..., 3], -1.0, 1.0) * (1 - height)
    return maps


def crop(images: Tensor, maps: Floats, size: int) -> Tensor:
    """Crops of each image.

    Args:
        images: float32 [rows, channels, height, width].
        maps: float64 [rows, views, 2, 3], as `boxes` gives them.
        size: side of the crops, in pixels.

    Returns:
        float32 [rows * views, channels, size, size], the views of a row beside each other.
    """
    views = maps.shape[1]
    grid = functional.affine_grid(
        tensor(maps).flatten(0, 1), [len(maps) * views, images.shape[1], size, size], align_corners=False
    )
    repeated = images.repeat_interleave(views, 0)
    return functional.grid_sample(repeated, grid, padding_mode="border", align_corners=False)
