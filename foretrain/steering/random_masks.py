"""A control for learned masks: random ones, as large and as smooth."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from foretrain.batch import Batch
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.steering._masked_views import MaskedViews
from foretrain.steering._masking import blurred

HALVINGS = 30
"""Halvings of the interval in which the offset of a mask is sought: 40 / 2^30, far below float32's precision there."""


class RandomMasks(MaskedViews):
    """Smooth random masks: blurred noise through a sigmoid, shifted so that each mask keeps a share of exactly `keep`.

    They know nothing of the image or of any feedback. For a fair control take `keep`, `smoothness` and `contrast` such
    that the figures `keep` and `tv` are those of the masks that were learned.
    """

    kind: Literal["random_masks"] = "random_masks"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="control: what does hiding parts of images do when nobody chooses them?",
        overhead="a blur of every global crop",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"strength": 0.0}

    smoothness: Number = Field(0.125, gt=0, le=1)
    """Standard deviation of the blur of the noise, as a share of the crop's shorter side: how large spots are."""
    contrast: Number = Field(3.0, ge=0)
    """How sharply spots stand out; at 0 a mask is `keep` everywhere."""

    def masks(self, images: Tensor, batch: Batch, rows: slice) -> Tensor:
        """One mask per image, drawn from the row's place in the stream."""
        height, width = images.shape[-2:]
        count = len(images) // len(batch.positions[rows])
        numbers = range(batch.rows)[rows]
        noise = [batch.generator(row, self.kind).standard_normal((count, 1, height, width)) for row in numbers]
        drawn = torch.cat([torch.from_numpy(one) for one in noise]).to(images)
        fields = blurred(drawn, self.smoothness)
        mean, deviation = fields.mean((1, 2, 3), keepdim=True), fields.std((1, 2, 3), keepdim=True)
        return _with_mean(self.contrast * (fields - mean) / deviation, self.keep)


def _with_mean(fields: Tensor, mean: float) -> Tensor:
    """`sigmoid(fields + offset)` with the offset, one per field, that gives it this mean."""
    reach = float(fields.abs().max()) + 20
    low, high = torch.full_like(fields[:, :1, :1, :1], -reach), torch.full_like(fields[:, :1, :1, :1], reach)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        small = torch.sigmoid(fields + middle).mean((1, 2, 3), keepdim=True) < mean
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return torch.sigmoid(fields + (low + high) / 2)
