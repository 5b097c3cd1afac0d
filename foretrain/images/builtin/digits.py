"""Handwritten digits, as scikit-learn ships them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from foretrain.errors import RequestError
from foretrain.images.builtin.base import ImageBuiltin
from foretrain.images.item import ImageItem
from foretrain.parts import Facts

TEST_SHARE = 0.2
"""Share of the digits in the part `test`, by the hash of their pixels."""


class Digits(ImageBuiltin):
    """1,797 handwritten digits of 43 writers, grey, 8 x 8 pixels, with their labels 0 to 9 (extra `[vision]`).

    From "Optical Recognition of Handwritten Digits" (UCI); the size and split of each digit are always the same.
    """

    kind: Literal["digits"] = "digits"
    facts: ClassVar[Facts] = Facts(answers="real images that need no download?")
    part: Literal["all", "train", "test"] = "all"
    """`test`: a fifth of the digits; `train`: the rest. The two share no image, so one can train and one can judge."""
    scale: int = Field(1, ge=1, le=8)
    """Every pixel becomes a square of so many by so many."""

    def items(self) -> Iterator[ImageItem]:
        found = _load()
        for number, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
            # Grey values are whole numbers from 0 to 16.
            pixels = np.rint(image[None] * (255 / 16)).astype(np.uint8)
            scaled = np.ascontiguousarray(pixels.repeat(self.scale, 1).repeat(self.scale, 2))
            item = ImageItem(f"digits:{number}", scaled, int(label))
            test = int(ImageItem("", pixels).key[:13], 16) < TEST_SHARE * 16**13
            if self.part == "all" or test == (self.part == "test"):
                yield item


def _load() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise RequestError(
            "builtin:digits comes with scikit-learn, which is not installed: pip install 'foretrain[vision]'."
        ) from error
    return load_digits()
