"""Inputs: the places images come from (files, folders, built-in sets), and the small sets that are read as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foretrain.corpus.paths import content_hash, locate, missing
from foretrain.errors import RequestError
from foretrain.images.builtin.base import ImageBuiltin
from foretrain.images.formats.base import image_format, image_suffixes, is_image_file
from foretrain.images.item import ImageItem
from foretrain.parts import find, kinds
from foretrain.section import problems

BUILTIN = "builtin:"


class ImageInput(ABC):
    """One place that images come from."""

    @abstractmethod
    def items(self) -> Iterator[ImageItem]:
        """Every image, always in the same order."""

    @abstractmethod
    def identity(self) -> Any:
        """Plain data that decides the images."""


class FileInput(ImageInput):
    """One file of a known format; `label` is that of its folder, where folders are classes."""

    def __init__(self, name: str, path: Path, label: int | None = None) -> None:
        self.name, self.path, self.label = name, path, label
        self.format = image_format(path)

    def items(self) -> Iterator[ImageItem]:
        for item in self.format.items(self.path, self.name):
            yield item if item.label is not None or self.label is None else replace(item, label=self.label)

    def identity(self) -> Any:
        return [self.name, content_hash(self.path)]


class BuiltinInput(ImageInput):
    """A set that needs no download."""

    def __init__(self, part: ImageBuiltin) -> None:
        self.part = part

    def items(self) -> Iterator[ImageItem]:
        return self.part.items()

    def identity(self) -> Any:
        return [f"{BUILTIN}{self.part.kind}", self.part.identity()]


def open_images(path: str, options: Mapping[str, Any] | None = None) -> list[ImageInput]:
    """The inputs behind one path of a recipe: `builtin:NAME`, a file (`data:FILE` too), or a folder of files.

    Raises:
        RequestError: nothing is there, it is of another kind, or an option is wrong.
    """
    if path.startswith(BUILTIN):
        return [BuiltinInput(_builtin(path.removeprefix(BUILTIN), options or {}))]
    if options:
        raise RequestError(f"{path}: 'options' ({', '.join(options)}) are for 'builtin:' only; a file has none.")
    found = locate(path)
    if found.is_dir():
        return _in_folder(found)
    if not found.exists():
        raise missing(found)
    return [FileInput(found.name, found)]


def _builtin(name: str, options: Mapping[str, Any]) -> ImageBuiltin:
    try:
        return find(ImageBuiltin, name).model_validate({**options, "kind": name})  # type: ignore[type-abstract]
    except ValidationError as error:
        faults = "; ".join(problems(error, within="options"))
        raise RequestError(f"{BUILTIN}{name}: {faults}") from error


def _in_folder(folder: Path) -> list[ImageInput]:
    names = sorted(image_files(folder))
    if not names:
        raise RequestError(
            f"The folder {folder} holds no images; files that can be read end in {', '.join(image_suffixes())}."
        )
    classes = sorted({name.split("/")[0] for name in names})
    nested = all("/" in name for name in names)
    labels = {name: classes.index(name.split("/")[0]) if nested else None for name in names}
    return [FileInput(name, folder / name, labels[name]) for name in names]


def image_files(folder: Path) -> Iterator[str]:
    """Every image file below a folder, by its path inside it; hidden files and folders are passed over."""
    for found in folder.rglob("*"):
        name = found.relative_to(folder).as_posix()
        if is_image_file(found) and found.is_file() and not any(part.startswith(".") for part in name.split("/")):
            yield name


def holds_images(path: str) -> bool:
    """Whether a path of a recipe is one that images are read from, as far as its name (or its files' names) tells."""
    if path.startswith(BUILTIN):
        return path.removeprefix(BUILTIN) in kinds(ImageBuiltin)  # type: ignore[type-abstract]
    found = locate(path)
    return any(True for _ in image_files(found)) if found.is_dir() else is_image_file(found)


def read_images(
    path: str | Path,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    *,
    label: bool = False,
    mask: bool = False,
) -> list[ImageItem]:
    """The images of a small set (a task's, a feedback's): a file, a folder, or `builtin:NAME`; all of one shape.

    Args:
        path: where they are.
        options: settings of a built-in set.
        limit: read at most this many.
        label: whether every image must have a label.
        mask: whether every image must have a mask.

    Raises:
        RequestError: there is none, one cannot be read, has another shape than the first, or lacks what it must have.
    """
    items: list[ImageItem] = []
    for item in islice((item for entry in open_images(str(path), options) for item in entry.items()), limit):
        refuse_other_shape(str(path), items[0] if items else item, item)
        for name, needed, value in (("label", label, item.label), ("mask", mask, item.mask)):
            if needed and value is None:
                raise RequestError(f"{path}: the image {item.id} has no {name}, and every image here needs one.")
        items.append(item)
    if not items:
        raise RequestError(f"{path} holds no images.")
    return items


def refuse_other_shape(path: str, first: ImageItem, item: ImageItem) -> None:
    """Say so where an image is not like the first of its set.

    Raises:
        RequestError: it has another number of channels, or another size.
    """
    if item.pixels.shape == first.pixels.shape:
        return
    one, other = (f"{'x'.join(map(str, i.pixels.shape[1:]))} with {i.pixels.shape[0]} channels" for i in (first, item))
    raise RequestError(
        f"{path}: the images of a set should be of one size and number of channels (height x width): {first.id} is "
        f"{one}, and {item.id} is {other}. Resize or convert them first, or make two sets of them."
    )
