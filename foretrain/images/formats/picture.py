"""Images in picture files, one each: PNG and JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from foretrain.errors import RequestError
from foretrain.images.formats.base import ImageFormat
from foretrain.images.item import ImageItem
from foretrain.parts import Facts


class Picture(ImageFormat):
    """One image a file, read by Pillow: grey pictures have 1 channel, all others become RGB (transparency is dropped).

    A folder of them is a set. Where every file lies in a folder of its class (`cat/1.png`, `dog/2.png`), the number of
    that folder, in the order of their names, is the label.
    """

    kind: Literal["picture"] = "picture"
    facts: ClassVar[Facts] = Facts(answers="how are images read? one file each, PNG or JPEG")
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg")

    def items(self, path: Path, name: str) -> Iterator[ImageItem]:
        image_module = _pillow(path)
        try:
            with image_module.open(path, formats=("PNG", "JPEG")) as picture:
                if picture.mode.startswith(("I", "F")):
                    raise RequestError(
                        f"{path} holds more than 8 bits a pixel (mode {picture.mode}); save it with 8 bits a channel."
                    )
                grey = picture.mode in ("L", "LA", "1")
                pixels = np.asarray(picture.convert("L" if grey else "RGB"), np.uint8)
        except (OSError, ValueError, SyntaxError, image_module.DecompressionBombError) as error:
            raise RequestError(f"{path} cannot be read as a PNG or JPEG picture ({error}).") from error
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        yield ImageItem(name, np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _pillow(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise RequestError(
            f"{path}: pictures are read by Pillow, which is not installed: pip install 'foretrain[vision]'."
        ) from error
    return Image
