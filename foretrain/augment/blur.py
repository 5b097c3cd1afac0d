"""Gaussian blur, each image with a width of its own."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn import functional

from foretrain.augment.draws import Floats, tensor


def blur(images: Tensor, sigma: Floats, largest: float) -> Tensor:
    """Each image blurred by a Gaussian, mirrored at its borders.

    Written as sums of shifted images: a convolution with as many groups as there are images picks its algorithm, and
    with it the rounding, by their number, and a row must not depend on which others it is prepared with.

    Args:
        images: float32 [images, channels, height, width].
        sigma: float64 [images], standard deviations in pixels, above 0.
        largest: the largest sigma that can come; the Gaussian is cut at three times that.
    """
    reach = min(math.ceil(3 * largest), min(images.shape[-2:]) - 1)
    places = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (places / sigma[:, None]) ** 2)
    taps = tensor(weights / weights.sum(1, keepdims=True))[:, :, None, None, None].to(images.device)
    for dimension in (-1, -2):
        sides = [reach, reach, 0, 0] if dimension == -1 else [0, 0, reach, reach]
        padded, length = functional.pad(images, sides, mode="reflect"), images.shape[dimension]
        shifted = (padded.narrow(dimension, start, length) * taps[:, start] for start in range(2 * reach + 1))
        images = sum(shifted, images.new_zeros(()))
    return images
