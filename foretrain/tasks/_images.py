"""What image tasks share: labelled images, of which some teach a probe and others judge it; and their features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.images.inputs import read_images
from foretrain.images.item import ImageItem
from foretrain.section import Count, DataPath
from foretrain.tasks._probing import Judging, divided
from foretrain.tasks.base import Task

if TYPE_CHECKING:
    from foretrain.images.subject import ImageSubject


class ImageTask(Task):
    """A task on labelled images; the probe that it trains never sees an image that judges it."""

    modality: ClassVar[str] = "image"
    needs_label: ClassVar[bool] = False
    needs_mask: ClassVar[bool] = False

    path: DataPath
    """A .npz file, a folder of images, or `builtin:NAME`, with the labels that the task needs."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` set."""
    test: Judging = 0.25
    """The images that judge: a share (by content hash, so that equal images stay together), or a path of their own."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many images (of each path), chosen by their content."""

    def check(self) -> None:
        """Read all images and their labels."""
        self.items()

    def images(self) -> Iterable[ImageItem]:
        """The images that judge."""
        return self.items()[1]

    def items(self) -> tuple[list[ImageItem], list[ImageItem]]:
        """The images that the probe learns from, and those that judge it.

        Raises:
            RequestError: one side is empty, images lack labels or differ in size, or the sides share an image.
        """
        found = self._load(self.path, self.options)
        if isinstance(self.test, str):
            train, test = found, self._load(self.test, self.options if self.test == self.path else {})
            shared = {item.key for item in train} & {item.key for item in test}
            if shared:
                raise RequestError(
                    f"{self.path} and {self.test} share {len(shared)} images; a probe should be judged on images that "
                    "it didn't learn from."
                )
        else:
            train, test = divided(((["test", item.key], item) for item in found), self.test)
        if not train or not test:
            raise RequestError(f"{self.path}: {len(train)} images to learn from and {len(test)} to judge are too few.")
        if train[0].pixels.shape != test[0].pixels.shape:
            raise RequestError(
                f"{self.path} has images of {list(train[0].pixels.shape)} (channels, height, width) and {self.test} of "
                f"{list(test[0].pixels.shape)}; they should be alike."
            )
        return train, test

    def _load(self, path: str, options: dict[str, Any]) -> list[ImageItem]:
        found = read_images(path, options=options, label=self.needs_label, mask=self.needs_mask)
        if self.limit is None or self.limit >= len(found):
            return found
        kept = sorted(range(len(found)), key=lambda number: found[number].key)[: self.limit]
        return [found[number] for number in sorted(kept)]


def features(subject: ImageSubject, items: Sequence[ImageItem]) -> tuple[Tensor, Tensor]:
    """Features of images: float32 [images, width] of the class token, [images, down, across, width] of the patches.

    Raises:
        RequestError: the images aren't whole patches of the model, or have other channels than it reads.
    """
    channels, height, width = items[0].pixels.shape
    if height % subject.patch or width % subject.patch or channels != subject.channels:
        raise RequestError(
            f"The images of a task have {height} x {width} pixels and {channels} channels; the model reads whole "
            f"patches of {subject.patch} x {subject.patch} (model.patch) and {subject.channels} "
            "channels (model.channels)."
        )
    whole: list[Tensor] = []
    patches: list[Tensor] = []
    for begin in range(0, len(items), subject.batch_images):
        pixels = np.stack([item.pixels for item in items[begin : begin + subject.batch_images]])
        for kept, found in zip((whole, patches), subject.features(torch.from_numpy(pixels)), strict=True):
            kept.append(found.cpu())
    return torch.cat(whole), torch.cat(patches)
