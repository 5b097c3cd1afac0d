"""Filled shapes on textured clutter, with the class of every pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretrain.hashing import seed_from
from foretrain.images.builtin._drawing import Dice, Grid, blobs, gratings, lines, outline
from foretrain.images.builtin.base import ImageBuiltin
from foretrain.images.item import ImageItem
from foretrain.parts import Facts
from foretrain.section import Count, Number

NAMES = ("background", "circle", "square", "triangle", "ring", "cross")
"""Names of the classes of a pixel, by number."""
MOST = 3
"""Shapes in an image at most."""
BLOCK = 64
"""Images that are drawn at once."""
SMALLEST, LARGEST = 0.17, 0.32
"""Radius of a shape, as a share of the image."""

Floats = NDArray[np.float64]


class Shapes(ImageBuiltin):
    """One to three filled shapes a picture (circle, square, triangle, ring, cross) on textured clutter, in RGB.

    Sizes, places, rotations, colours and textures are random, and shapes and clutter draw their colours from one
    distribution, so that no colour gives a class away. The mask has the class of every pixel (0: background, 1 to 5:
    the shapes in the order above; later shapes lie on earlier ones); the label is the class of the shape with the most
    pixels that are seen, from 0 on (class of the pixel minus 1).
    """

    kind: Literal["shapes"] = "shapes"
    facts: ClassVar[Facts] = Facts(answers="images whose parts are known, of any number?")
    count: Count = Field(2000, gt=0)
    """Number of pictures."""
    size: int = Field(32, ge=16, le=512)
    """Pixels along each side."""
    classes: int = Field(5, ge=1, le=5)
    """The first so many shapes of the list are drawn."""
    clutter: Number = Field(0.5, ge=0, le=1)
    """Strength of the texture: 0 for plain shapes on a plain ground."""
    seed: int = Field(0, ge=0)
    """Another seed gives other pictures."""

    def items(self) -> Iterator[ImageItem]:
        for first in range(0, self.count, BLOCK):
            numbers = range(first, min(first + BLOCK, self.count))
            pixels, masks, labels = self._draw([seed_from(self.seed, "shapes", number) for number in numbers])
            for place, number in enumerate(numbers):
                yield ImageItem(f"shapes:{number}", pixels[place], int(labels[place]), masks[place])

    def _draw(self, keys: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
        """Pictures uint8 [n, 3, size, size], masks [n, size, size], labels [n]; each depends on its own key alone."""
        dice, grid = Dice(keys), Grid(self.size)
        ground = dice.colour()
        picture = ground + self.clutter * gratings(dice, grid, 3)
        picture = blobs(dice, grid, picture, self.clutter)
        picture = lines(dice, grid, picture, self.clutter)
        masks = np.zeros((len(keys), self.size, self.size), np.int64)
        owners = np.zeros_like(masks)
        shapes = 1 + dice.below(MOST)
        for number in range(1, MOST + 1):
            classes = 1 + dice.below(self.classes)
            radius = dice.between(SMALLEST, LARGEST)
            inside = outline(dice, grid, classes - 1, radius) & (shapes >= number)[:, None, None]
            texture = self._contrasting(dice, picture, inside) + 0.6 * self.clutter * gratings(dice, grid, 1)
            picture = np.where(inside[:, None], texture, picture)
            masks = np.where(inside, classes[:, None, None], masks)
            owners = np.where(inside, number, owners)
        light = 1 + 0.3 * self.clutter * grid.slope(dice)
        noise = 0.12 * self.clutter * (dice.noise(self.size) - 0.5)
        pixels = np.clip(picture * light[:, None] + noise, 0, 1)
        return np.rint(255 * pixels).astype(np.uint8), masks, _largest(masks, owners) - 1

    def _contrasting(self, dice: Dice, picture: Floats, inside: NDArray[np.bool_]) -> Floats:
        """The one of four random colours [n, 3, 1, 1] that is farthest from what the shape will cover."""
        covered = np.maximum(inside.sum((1, 2)), 1)[:, None]
        under = (picture * inside[:, None]).sum((2, 3)) / covered
        colours = np.stack([dice.colour()[..., 0, 0] for _ in range(4)], 1)
        best = np.abs(colours - under[:, None]).sum(-1).argmax(1)
        return colours[np.arange(len(best)), best][..., None, None]


def _largest(masks: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class of the shape with the most pixels, [n]; the earliest of several."""
    sizes = np.stack([(owners == number).sum((1, 2)) for number in range(1, MOST + 1)], 1)
    owner = 1 + sizes.argmax(1)
    return np.where(owners == owner[:, None, None], masks, 0).max((1, 2))
