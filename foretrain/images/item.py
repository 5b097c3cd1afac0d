"""ImageItem: one image before it becomes part of a set, and what identifies it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class ImageItem:
    """One image, and what is known of it.

    Attributes:
        id: where it comes from, such as `file.npz:17`.
        pixels: uint8 [channels, height, width].
        label: its class, from 0 on; None where nothing says so.
        mask: int64 [height, width], the class of every pixel; None where nothing says so.
    """

    id: str
    pixels: Pixels
    label: int | None = None
    mask: NDArray[np.int64] | None = None

    @property
    def key(self) -> str:
        """32 hexadecimal digits that two images share when their pixels are the same."""
        return pixel_key(self.pixels)


def pixel_key(pixels: Pixels) -> str:
    """Hash of an image's shape and pixels (uint8 [channels, height, width])."""
    shape = np.array(pixels.shape, "<i8").tobytes()
    return hashlib.blake2b(shape + np.ascontiguousarray(pixels).tobytes(), digest_size=16, person=b"image").hexdigest()
