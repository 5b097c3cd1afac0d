"""Trim task vectors, elect a sign for each weight, and average what agrees with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from foretrain.merging.rules.base import Combine, Rule
from foretrain.parts import Facts
from foretrain.section import Number

if TYPE_CHECKING:
    from foretrain.merging.vectors import TaskVectors

_HALF = 1 << 16


class Ties(Rule):
    """Each vector keeps its largest magnitudes; each weight takes the mean of those that have the sign of their sum.

    Magnitudes are ranked over the whole vector, not by tensor; where several equal the last one that is kept, all of
    them are. A weight that nobody keeps, or whose kept values cancel, does not change.
    """

    kind: Literal["ties"] = "ties"
    facts: ClassVar[Facts] = Facts(
        paper="TIES-Merging: Resolving Interference When Merging Models",
        arxiv="2306.01708",
        year=2023,
        answers="how do several task vectors become one? trimmed, and where their signs agree",
        overhead="two more passes over the models for each vector's threshold",
    )

    keep: Number = Field(0.2, gt=0, le=1)
    """Share of each vector's weights that are kept, the largest ones."""

    def over(self, vectors: TaskVectors) -> Combine:
        size = sum(prod(vectors.base.shape(name)) for name in vectors.names)
        kept = max(1, round(self.keep * size))
        thresholds = [largest(partial(vectors.of, number), kept) for number in range(len(vectors))]

        def combine(name: str, differences: Sequence[Tensor]) -> Tensor:
            trimmed = torch.stack(
                [each * (each.abs().float() >= bar) for each, bar in zip(differences, thresholds, strict=True)]
            )
            sign = trimmed.sum(0).sign()
            agreeing = (trimmed.sign() == sign) & (sign != 0)
            return (trimmed * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)

        return combine


def largest(pieces: Callable[[], Iterable[Tensor]], count: int) -> float:
    """The `count`-th largest magnitude among the numbers of several tensors, in fp32, with one of them in memory.

    Positive floats are ordered as their bits are, so a count by the upper half of the bits, and one by the lower half
    of those that share it, tell the number exactly.
    """
    upper, lower = (torch.zeros(_HALF, dtype=torch.int64) for _ in range(2))
    for bits in map(_bits, pieces()):
        upper += torch.bincount(bits >> 16, minlength=_HALF)
    high, above = _rank(upper, count)
    for bits in map(_bits, pieces()):
        lower += torch.bincount(bits[bits >> 16 == high] & (_HALF - 1), minlength=_HALF)
    low, _ = _rank(lower, count - above)
    return float(torch.tensor((high << 16) + low, dtype=torch.int32).view(torch.float32))


def _bits(piece: Tensor) -> Tensor:
    return piece.abs().float().view(torch.int32).flatten()


def _rank(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin, from above, that holds the number of a rank, and how many lie in bins above it."""
    cumulative = counts.flip(0).cumsum(0)
    place = int((cumulative < wanted).sum())
    return len(counts) - 1 - place, int(cumulative[place - 1]) if place else 0
