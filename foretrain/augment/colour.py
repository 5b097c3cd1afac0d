"""Changes of colour: kornia's operations on whole batches (extra `[vision]`)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from foretrain.augment.draws import Floats, tensor
from foretrain.errors import RequestError

SOLAR = 0.5
"""Solarised pixels are turned round from here on."""


def kornia_enhance() -> Any:
    """The module of kornia that holds the operations.

    Raises:
        RequestError: kornia is not installed; the message names the extra.
    """
    try:
        from kornia import enhance
    except ImportError as error:
        raise RequestError(
            "Augmentations of images need the package kornia; install it with `pip install 'foretrain[vision]'`."
        ) from error
    return enhance


def jitter(images: Tensor, brightness: Floats, contrast: Floats, saturation: Floats, hue: Floats) -> Tensor:
    """Images with other brightness and contrast and, if they have three channels, other saturation and hue.

    Args:
        images: float32 [images, channels, height, width] in [0, 1].
        brightness: factor of each image; 1 changes nothing.
        contrast: factor of the distance to the image's mean grey; 1 changes nothing.
        saturation: factor of the distance to each pixel's grey; 1 changes nothing.
        hue: turn of the colour wheel, as a share of a whole turn; 0 changes nothing.
    """
    enhance = kornia_enhance()
    images = enhance.adjust_brightness_accumulative(images, tensor(brightness))
    images = enhance.adjust_contrast_with_mean_subtraction(images, tensor(contrast))
    if images.shape[1] == 3:
        images = enhance.adjust_saturation_with_gray_subtraction(images, tensor(saturation))
        images = enhance.adjust_hue(images, tensor(2 * math.pi * hue))
    return images


def solarise(images: Tensor) -> Tensor:
    """Images in [0, 1] with every value x of at least a half turned into 1 - x."""
    return kornia_enhance().solarize(images, SOLAR)
