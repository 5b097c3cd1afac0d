"""What can be read off the frozen features of patches: the class of every pixel, by a linear head."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from foretrain.hashing import seed_from
from foretrain.images.item import ImageItem
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.tasks._images import ImageTask, features
from foretrain.tasks.base import Measured
from foretrain.tasks.statistics import LEVEL, mean

IGNORED = -100
"""What pixels that are not judged have in place of a class."""

Counts = NDArray[np.int64]


class SegmentationProbe(ImageTask):
    """Batch norm and a linear layer on frozen features of patches, upsampled bilinearly to the class of every pixel.

    The head takes a fixed number of AdamW steps on the training images, with a learning rate that falls linearly to 0.

    Metrics: `miou` (intersection over union of each class that the judging images hold, over all their pixels,
    averaged over classes; its interval is a bootstrap over images) and `accuracy` (share of pixels that are right).
    """

    kind: Literal["segmentation_probe"] = "segmentation_probe"
    facts: ClassVar[Facts] = Facts(answers="what do the features of a patch say of what is there?")
    measures = {"miou": True, "accuracy": True}
    needs_mask: ClassVar[bool] = True

    steps: Count = Field(500, ge=1)
    """Steps of the head."""
    batch: Count = Field(16, ge=1)
    """Images of a step, drawn without repetition from the training images, again and again."""
    lr: Number = Field(1e-2, gt=0)
    """Learning rate of the head at the start."""
    weight_decay: Number = Field(0.05, ge=0)
    """Decoupled weight decay of the head."""
    ignore: int | None = Field(255, ge=0)
    """Class of pixels that are neither learned nor judged; null where all are."""
    resamples: Count = Field(1000, ge=10)
    """Resamples of the images for the interval."""
    head_seed: int = Field(0, ge=0)
    """Of the head's start, the order of its images and the resamples: the run's own seed plays no part."""

    def evaluate(self, subject: Any, seed: int) -> dict[str, Measured]:
        """See the class."""
        train, test = self.items()
        learned, judged = self._masks(train), self._masks(test)
        classes = int(max(learned.max(), judged.max())) + 1
        head = self._train(features(subject, train)[1], learned, classes)
        pieces = features(subject, test)[1].split(self.batch)
        with torch.no_grad():
            found = torch.cat([_classes(head, piece, judged.shape[1:]).argmax(1) for piece in pieces])
        counts = confusion(found, judged, classes)
        right, pixels = np.diagonal(counts, axis1=1, axis2=2).sum(1), counts.sum((1, 2))
        seen = pixels > 0
        return {
            "miou": self._mean_iou(counts),
            "accuracy": mean(right[seen].tolist(), pixels[seen].tolist(), higher_is_better=True),
        }

    def _masks(self, items: list[ImageItem]) -> Tensor:
        masks = torch.from_numpy(np.stack([item.mask for item in items if item.mask is not None]))
        return masks if self.ignore is None else masks.masked_fill(masks == self.ignore, IGNORED)

    def _train(self, patches: Tensor, masks: Tensor, classes: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed_from(self.head_seed, "segmentation_probe"))
        head = linear_head(patches.shape[-1], classes, generator)
        optimizer = torch.optim.AdamW(head.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        order = torch.empty(0, dtype=torch.long)
        for step in range(self.steps):
            while len(order) < min(self.batch, len(patches)):
                order = torch.cat([order, torch.randperm(len(patches), generator=generator)])
            rows, order = order[: self.batch], order[self.batch :]
            optimizer.param_groups[0]["lr"] = self.lr * (1 - step / self.steps)
            with torch.enable_grad():
                scores = _classes(head, patches[rows], masks.shape[1:])
                functional.cross_entropy(scores, masks[rows], ignore_index=IGNORED).backward()
            optimizer.step()
            optimizer.zero_grad()
        return head.eval()

    def _mean_iou(self, counts: Counts) -> Measured:
        images = len(counts)
        generator = np.random.Generator(np.random.Philox(seed_from(self.head_seed, "bootstrap")))
        drawn = generator.multinomial(images, np.full(images, 1 / images), size=self.resamples)
        value, sampled = mean_iou(counts.sum(0)), [mean_iou(np.tensordot(weights, counts, 1)) for weights in drawn]
        tail = 50 * (1 - LEVEL)
        low, high = np.percentile(sampled, [tail, 100 - tail])
        return Measured(value, min(float(low), value), max(float(high), value), images, True)


def linear_head(width: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Batch norm and a linear layer: from features [patches, width] to scores [patches, classes]."""
    layer = nn.utils.skip_init(nn.Linear, width, classes)
    nn.init.normal_(layer.weight, std=0.01, generator=generator)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.BatchNorm1d(width), layer)


def _classes(head: nn.Module, patches: Tensor, size: torch.Size) -> Tensor:
    """Scores [images, classes, height, width] of patches [images, down, across, width]."""
    scores = head(patches.flatten(0, 2)).unflatten(0, patches.shape[:3]).permute(0, 3, 1, 2)
    return functional.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)


def confusion(found: Tensor, true: Tensor, classes: int) -> Counts:
    """How many pixels of each true class were found to be of which, int64 [images, true, found].

    Args:
        found: int64 [images, height, width].
        true: the same, with `IGNORED` where nothing is judged.
        classes: number of classes.
    """
    counts = np.empty((len(true), classes, classes), np.int64)
    for number, (mine, right) in enumerate(zip(found, true, strict=True)):
        judged = right != IGNORED
        pairs = right[judged] * classes + mine[judged]
        counts[number] = torch.bincount(pairs, minlength=classes**2).view(classes, classes).numpy()
    return counts


def mean_iou(counts: Counts) -> float:
    """Intersection over union, averaged over the classes that there are; of counts [true, found]."""
    hits, true, found = np.diagonal(counts), counts.sum(1), counts.sum(0)
    there = true > 0
    return float((hits[there] / (true + found - hits)[there]).mean())
