"""ImageBuiltin: a set of images that needs no download: a generator, or what comes with a library."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from foretrain.hashing import hash_file
from foretrain.images.item import ImageItem
from foretrain.parts import Part


class ImageBuiltin(Part):
    """A set of images named `builtin:KIND` in a recipe; its fields are the `options` beside it."""

    axis: ClassVar[str] = "image set"
    modality: ClassVar[str] = "image"

    @abstractmethod
    def items(self) -> Iterator[ImageItem]:
        """Every image, always in the same order.

        Raises:
            RequestError: a library that it needs is not installed; names the extra.
        """

    def identity(self) -> dict[str, Any]:
        """What decides the images, as plain data: settings, code, the library that computes."""
        files = sorted({*Path(__file__).parent.glob("*.py"), Path(inspect.getfile(type(self)))})
        code = {path.name: hash_file(path) for path in files}
        return {"settings": self.model_dump(mode="json"), "code": code, "numpy": np.__version__}
