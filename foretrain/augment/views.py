"""Views of images: crops, colours, blur and solarisation with the settings that a recipe gives."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretrain.augment.blur import blur
from foretrain.augment.colour import jitter, solarise
from foretrain.augment.crops import NUMBERS, boxes, crop
from foretrain.augment.draws import Floats, between, draw
from foretrain.augment.normalise import normalise, unit
from foretrain.batch import Batch
from foretrain.section import Number, Section


class Augmentation(Section):
    """How views of an image differ, beside their crops. The defaults are those of DINO, which took them from BYOL."""

    flip: Number = Field(0.5, ge=0, le=1)
    """How often a view is mirrored from left to right; 0 where left and right mean something (digits)."""
    jitter: Number = Field(0.8, ge=0, le=1)
    """How often a view's colours are changed."""
    brightness: Number = Field(0.4, ge=0, lt=1)
    """Brightness is multiplied by 1 plus or minus up to this."""
    contrast: Number = Field(0.4, ge=0, lt=1)
    """Contrast is multiplied by 1 plus or minus up to this."""
    saturation: Number = Field(0.2, ge=0, lt=1)
    """Saturation is multiplied by 1 plus or minus up to this; images of three channels only."""
    hue: Number = Field(0.1, ge=0, le=0.5)
    """Hue is turned by up to this share of a whole turn, either way; images of three channels only."""
    blur_first: Number = Field(1.0, ge=0, le=1)
    """How often the first global crop is blurred."""
    blur_second: Number = Field(0.1, ge=0, le=1)
    """How often each other global crop is blurred."""
    blur_local: Number = Field(0.5, ge=0, le=1)
    """How often a local crop is blurred."""
    blur_width: Number = Field(0.009, gt=0, le=0.1)
    """Largest standard deviation of the blur, as a share of the view's side (2 pixels of 224); the least is 1/20."""
    solarise: Number = Field(0.2, ge=0, le=1)
    """How often each global crop but the first is solarised (bright pixels turned dark)."""


_COLOURS = 8
"""Uniform numbers beside the crop: jitter or not, four of its strengths, blur or not, its width, solarise or not."""


def make_views(
    batch: Batch,
    purpose: str,
    number: int,
    size: int,
    scale: tuple[float, float],
    settings: Augmentation,
    blurred: Floats,
    solarised: Floats,
) -> Tensor:
    """Normalised views of the images of a batch, pure in (seed, position).

    Args:
        batch: with `pixels` uint8 [rows, channels, height, width].
        purpose: keeps the random numbers of these views apart from those of others.
        number: views of each image.
        size: side of a view, in pixels.
        scale: range of a crop's area, as a share of the image's.
        settings: how views differ.
        blurred: how often each view is blurred, [number].
        solarised: how often each view is solarised, [number].

    Returns:
        float32 [rows, number, channels, size, size].
    """
    images = unit(batch["pixels"])
    shape = (batch.rows, number, images.shape[1], size, size)
    if not batch.rows or not number:
        return images.new_zeros(shape)
    uniform = draw(batch, purpose, number, NUMBERS + _COLOURS)
    views = crop(images, boxes(uniform[..., :NUMBERS], scale, settings.flip), size)
    colours = uniform[..., NUMBERS:]
    # Each change is made to the views that get it and to no other: changing colours costs more than all the rest.
    chosen = _where(colours[..., 0] < settings.jitter)
    strengths = _strengths(colours[..., 1:5].reshape(-1, 4)[chosen.numpy()], settings)
    views[chosen] = jitter(views[chosen], *strengths)
    chosen, largest = _where(colours[..., 5] < blurred), settings.blur_width * size
    sigma = between(colours[..., 6].reshape(-1)[chosen.numpy()], largest / 20, largest)
    views[chosen] = blur(views[chosen], sigma, largest)
    chosen = _where(colours[..., 7] < solarised)
    views[chosen] = solarise(views[chosen])
    return normalise(views).view(shape)


def _where(chosen: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(chosen))


def _strengths(uniform: Floats, settings: Augmentation) -> tuple[Floats, Floats, Floats, Floats]:
    around_one = [
        between(uniform[:, place], 1 - strength, 1 + strength)
        for place, strength in enumerate((settings.brightness, settings.contrast, settings.saturation))
    ]
    return around_one[0], around_one[1], around_one[2], between(uniform[:, 3], -settings.hue, settings.hue)
