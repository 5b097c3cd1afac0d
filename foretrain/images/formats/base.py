"""ImageFormat: how the images of a file are read; named by the suffix of the file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from foretrain.errors import RequestError
from foretrain.images.item import ImageItem
from foretrain.parts import Part, kinds


class ImageFormat(Part):
    """Reads files with one of its suffixes."""

    axis: ClassVar[str] = "image format"
    modality: ClassVar[str] = "image"
    suffixes: ClassVar[tuple[str, ...]] = ()
    """What the names of its files end in, in small letters."""

    @abstractmethod
    def items(self, path: Path, name: str) -> Iterator[ImageItem]:
        """Every image of a file, in order; `name` is how their ids begin.

        Raises:
            RequestError: the file cannot be read, or holds something else; names it.
        """


def image_suffixes() -> list[str]:
    """Every suffix that can be read, such as `.npz` and `.png`."""
    return sorted(suffix for part in kinds(ImageFormat).values() for suffix in part.suffixes)  # type: ignore[type-abstract]


def is_image_file(path: Path) -> bool:
    """Whether the name of a file has a suffix that can be read."""
    return path.name.lower().endswith(tuple(image_suffixes()))


def image_format(path: Path) -> ImageFormat:
    """The format of a file, by its suffix.

    Raises:
        RequestError: no format has that suffix; the message lists those that there are.
    """
    for kind, part in kinds(ImageFormat).items():  # type: ignore[type-abstract]
        if path.name.lower().endswith(part.suffixes):
            return part.model_validate({"kind": kind})
    raise RequestError(
        f"{path}: images cannot be read from such a file; the name should end in one of {', '.join(image_suffixes())}."
    )
