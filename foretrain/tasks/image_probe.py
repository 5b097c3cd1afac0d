"""What can be read off the frozen features of whole images: by their neighbours, and by a linear classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.images.item import ImageItem
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.tasks._images import ImageTask, features
from foretrain.tasks.base import Measured
from foretrain.tasks.linear_probe import fit
from foretrain.tasks.statistics import proportion

if TYPE_CHECKING:
    from foretrain.images.subject import ImageSubject

TEMPERATURE = 0.07
"""Neighbours vote with weight exp(cosine / temperature), as in DINO's evaluation."""


class ImageProbe(ImageTask):
    """Labels of images from frozen features: by the votes of the nearest images, and by logistic regression.

    Metrics: `knn_accuracy` (the `neighbours` nearest images by cosine vote, each with weight exp(cosine / 0.07)) and
    `linear_accuracy` (logistic regression with an L2 penalty on features standardised over the training images).
    """

    kind: Literal["image_probe"] = "image_probe"
    facts: ClassVar[Facts] = Facts(answers="what do the features of an image say of its class?")
    measures = {"knn_accuracy": True, "linear_accuracy": True}
    needs_label: ClassVar[bool] = True

    neighbours: Count = Field(20, ge=1)
    """How many of the nearest images vote; all, where there are fewer."""
    pool: Literal["class", "mean"] = "class"
    """Features are those of the class token, or the mean over all patches."""
    l2: Number = Field(1.0, gt=0)
    """Strength of the penalty `l2 / 2 * |weights|^2`, against the sum of the training images' losses."""

    def items(self) -> tuple[list[ImageItem], list[ImageItem]]:
        """See the base.

        Raises:
            RequestError: as there, or all images to learn from have one label.
        """
        train, test = super().items()
        if len({item.label for item in train}) < 2:
            raise RequestError(f"{self.path}: all images have the label {train[0].label}; two are needed.")
        return train, test

    def evaluate(self, subject: Any, seed: int) -> dict[str, Measured]:
        """See the class."""
        train, test = self.items()
        known, asked = self._pooled(subject, train), self._pooled(subject, test)
        names = sorted({_label(item) for item in train})
        places = torch.tensor([names.index(_label(item)) for item in train])
        centre, spread = known.mean(0), known.std(0, correction=0)
        spread[spread == 0] = 1.0
        weights, bias = fit(((known - centre) / spread).numpy(), places.tolist(), len(names), self.l2)
        linear = ((asked - centre) / spread).numpy() @ weights + bias
        votes = neighbour_votes(known, places, asked, len(names), self.neighbours).numpy()
        return {"knn_accuracy": _accuracy(votes, names, test), "linear_accuracy": _accuracy(linear, names, test)}

    def _pooled(self, subject: ImageSubject, items: list[ImageItem]) -> Tensor:
        whole, patches = features(subject, items)
        return (whole if self.pool == "class" else patches.flatten(1, 2).mean(1)).double()


def _label(item: ImageItem) -> int:
    assert item.label is not None  # `items` has seen to it
    return item.label


def _accuracy(scores: np.ndarray, names: list[int], test: list[ImageItem]) -> Measured:
    return proportion([names[best] == item.label for best, item in zip(scores.argmax(1), test, strict=True)])


def neighbour_votes(known: Tensor, labels: Tensor, asked: Tensor, classes: int, neighbours: int) -> Tensor:
    """Votes of the nearest images for each class.

    Args:
        known: [images, width], features of the images that vote.
        labels: int64 [images], their classes from 0.
        asked: [others, width].
        classes: number of classes.
        neighbours: how many vote, at most all.

    Returns:
        [others, classes].
    """
    normalize = torch.nn.functional.normalize
    cosines = normalize(asked, dim=1) @ normalize(known, dim=1).T
    nearest = cosines.topk(min(neighbours, len(known)), dim=1)
    votes = torch.zeros(len(asked), classes, dtype=cosines.dtype)
    return votes.scatter_add_(1, labels[nearest.indices], (nearest.values / TEMPERATURE).exp())
