"""Images in numpy archives: arrays by name."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from foretrain.errors import RequestError
from foretrain.images.formats.base import ImageFormat
from foretrain.images.item import ImageItem
from foretrain.parts import Facts

IMAGES, LABELS, MASKS = ("images", "x", "X"), ("labels", "y", "Y"), ("masks",)
"""Names that the arrays may have; the first one that is there counts."""


class Npz(ImageFormat):
    """One `.npz` archive of many images, as `numpy.savez` and `savez_compressed` write it.

    `images` (or `x`, `X`): uint8 [images, height, width] or [images, height, width, channels]. Where they are there,
    `labels` (or `y`, `Y`): whole numbers from 0 on [images], and `masks`: whole numbers from 0 on
    [images, height, width], the class of every pixel.
    """

    kind: Literal["npz"] = "npz"
    facts: ClassVar[Facts] = Facts(answers="how are images read? from a numpy archive")
    suffixes: ClassVar[tuple[str, ...]] = (".npz",)

    def items(self, path: Path, name: str) -> Iterator[ImageItem]:
        arrays = _load(path)
        images = _pixels(path, arrays)
        labels = _whole(path, arrays, LABELS, images.shape[:1])
        masks = _whole(path, arrays, MASKS, images.shape[:3])
        for number, image in enumerate(images):
            yield ImageItem(
                f"{name}:{number}",
                np.ascontiguousarray(image.transpose(2, 0, 1)),
                None if labels is None else int(labels[number]),
                None if masks is None else masks[number].astype(np.int64),
            )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that are used; pickled objects are never loaded."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in (*IMAGES, *LABELS, *MASKS)}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise RequestError(
            f"{path} cannot be read as a numpy archive ({reason}). It should be one of `numpy.savez`, with an array "
            "`images` uint8 [images, height, width, channels], and without Python objects."
        ) from error


def _first(arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> tuple[str, NDArray[Any]] | None:
    return next(((name, arrays[name]) for name in names if name in arrays), None)


def _pixels(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """The images as [images, height, width, channels]."""
    found = _first(arrays, IMAGES)
    if found is None:
        raise RequestError(f"{path} holds no images: it should have an array named one of {', '.join(IMAGES)}.")
    name, images = found
    if images.dtype != np.uint8:
        raise RequestError(
            f"{path}: the array '{name}' is {images.dtype}; pixels should be uint8, whole numbers from 0 to 255. Scale "
            "them and save them again with `.astype(numpy.uint8)`."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        hint = " Channels stand last here." if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise RequestError(
            f"{path}: the array '{name}' has the shape {list(found[1].shape)}; it should be [images, height, width] or "
            f"[images, height, width, channels] with 1 or 3 channels.{hint}"
        )
    return images


def _whole(
    path: Path, arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...], shape: tuple[int, ...]
) -> NDArray[Any] | None:
    """An array of classes, where there is one."""
    found = _first(arrays, names)
    if found is None:
        return None
    name, values = found
    if values.dtype.kind not in "iu" or values.shape != shape or (values.size and values.min() < 0):
        raise RequestError(
            f"{path}: the array '{name}' is {values.dtype} {list(values.shape)}; beside these images it should hold "
            f"whole numbers from 0 on, in the shape {list(shape)}."
        )
    return values
