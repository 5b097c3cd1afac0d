"""ImageSet: the images of one domain and split, read from a memory-mapped array; and what writes it.

A domain is one folder:

    pixels.npy        uint8 [images, channels, height, width], in the order they were read
    keys.npy          bytes [images, 16], the hash of each image's pixels
    ids.json          the id of each image
    SPLIT.npy         int64, the places of the images of a split
    manifest.json     shape and counts
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretrain.errors import CorruptFile
from foretrain.hashing import hash_data
from foretrain.images.item import ImageItem, pixel_key

FORMAT = 1
"""Version of the folder's layout."""
_HEADER = 128

Ints = NDArray[np.int64]
Shape = tuple[int, int, int]


class ImageSet:
    """The images of one split of a domain.

    To the stream an image is a window of `patches` tokens: token number t is a patch of image t // `patches`, so that
    batches, budgets and epochs are counted in patches as text is in tokens.

    Args:
        folder: of the domain.
        split: name of the split.
        patches: tokens that an image counts for.

    Attributes:
        shape: channels, height and width of its images.
        documents: number of images.
        tokens: `documents` times `patches`.
        bytes: of its pixels.
        hash: of its content.

    Raises:
        CorruptFile: when opened or read, if the files are not what was written; names them and what to do.
    """

    def __init__(self, folder: Path, split: str, patches: int) -> None:
        self.folder, self.split, self.patches = folder, split, patches
        self._pixels = _opened(folder / "pixels.npy", np.uint8, 4)
        self._keys = _opened(folder / "keys.npy", np.uint8, 2)
        self._places = np.asarray(_opened(folder / f"{split}.npy", np.int64, 1))
        images = len(self._pixels)
        if self._keys.shape != (images, 16) or (self._places.size and self._places.max() >= images):
            raise _damaged(folder)
        self.shape: Shape = tuple(self._pixels.shape[1:])  # type: ignore[assignment]
        self.documents = len(self._places)
        self.tokens = self.documents * patches
        self.bytes = self.documents * int(np.prod(self.shape))
        self.hash = hash_data([list(self.shape), self.keys()])

    def __repr__(self) -> str:
        return f"ImageSet({self.documents} images {'x'.join(map(str, self.shape))}, {self.split})"

    def keys(self) -> list[str]:
        """`ImageItem.key` of every image, in order."""
        return [row.tobytes().hex() for row in self._keys[self._places]]

    @cached_property
    def ids(self) -> list[str]:
        """The id of every image, in order."""
        everything = json.loads((self.folder / "ids.json").read_text(encoding="utf-8"))
        return [everything[place] for place in self._places.tolist()]

    def pixels(self, numbers: Ints) -> Tensor:
        """Images by their numbers (beyond the last comes the first): uint8 [rows, channels, height, width]."""
        out = np.empty((len(numbers), *self.shape), np.uint8)
        for row, place in enumerate(self._places[numbers % self.documents].tolist()):
            out[row] = self._pixels[place]
            if pixel_key(out[row]) != self._keys[place].tobytes().hex():
                raise _damaged(self.folder)
        return torch.from_numpy(out)

    def gathered(self, starts: Ints, length: int, segments: bool = False) -> dict[str, Tensor]:
        """`pixels` of the images that hold the tokens `starts`; an image is a window, so `length` says no more."""
        return {"pixels": self.pixels(starts // self.patches)}

    def names(self, start: int, length: int) -> list[str]:
        """The id of the image that holds the token `start`."""
        return [self.ids[start // self.patches % self.documents]]

    def windows(
        self, window: int, stride: int, *, rows: int, limit: int | None = None, segments: bool = False
    ) -> Iterator[dict[str, Tensor]]:
        """The set in order, for judging: `pixels` of at most `rows` images each, as many as fit into `limit` tokens.

        One image is judged whatever the limit.
        """
        count = self.documents if limit is None else min(self.documents, max(1, limit // self.patches))
        for begin in range(0, count, rows):
            yield {"pixels": self.pixels(np.arange(begin, min(begin + rows, count), dtype=np.int64))}

    def restated(self, loss: float) -> dict[str, float]:
        """A mean loss in other units: there is none that would compare from one image model to another."""
        return {}


class ImageWriter:
    """Writes the folder of a domain, image by image; use it in a `with`, and `finish` it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first: ImageItem | None = None
        self.ids: list[str] = []
        self.keys: list[str] = []
        self._file = (folder / "pixels.npy").open("wb")
        self._file.write(bytes(_HEADER))  # its place is kept; how many there are is known at the end

    def append(self, item: ImageItem, key: str) -> None:
        """Add an image of the same shape as the first."""
        self.first = self.first or item
        self._file.write(np.ascontiguousarray(item.pixels).tobytes())
        self.ids.append(item.id)
        self.keys.append(key)

    def finish(self, splits: Mapping[str, list[int]]) -> None:
        """Write what is known at the end: counts, hashes, ids and the places of every split."""
        assert self.first is not None
        shape = (len(self.ids), *self.first.pixels.shape)
        self._file.seek(0)
        self._file.write(_header(shape))
        self._file.close()
        raw = np.frombuffer(bytes.fromhex("".join(self.keys)), np.uint8).reshape(-1, 16)
        np.save(self.folder / "keys.npy", raw)
        (self.folder / "ids.json").write_text(json.dumps(self.ids), encoding="utf-8")
        for split, places in splits.items():
            np.save(self.folder / f"{split}.npy", np.array(places, np.int64))

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._file.close()


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of bytes, at a length that does not depend on the shape."""
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER - 10) + text.ljust(_HEADER - 11) + b"\n"


def _opened(path: Path, dtype: Any, dimensions: int) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path.parent) from error
    if array.dtype != dtype or array.ndim != dimensions:
        raise _damaged(path.parent)
    return array


def _damaged(folder: Path) -> CorruptFile:
    return CorruptFile(f"The images in {folder} are damaged. Delete that folder; the next run makes it again.")
