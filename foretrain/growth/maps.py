"""Width maps: which unit of a smaller layer each unit of a larger one is a copy of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

Copies = Literal["even", "random"]


@dataclass(frozen=True)
class WidthMap:
    """Units of a larger layer as copies of those of a smaller one.

    Attributes:
        size: units of the smaller layer.
        source: int64 [units of the larger layer], the unit that each one copies; the first `size` copy themselves.
    """

    size: int
    source: Tensor

    @cached_property
    def share(self) -> Tensor:
        """1 over the number of copies of a unit, for each copy, float64: what each of them passes on."""
        return 1 / torch.bincount(self.source, minlength=self.size).double()[self.source]

    @property
    def even(self) -> bool:
        """Whether every unit has as many copies."""
        return bool((self.share == self.share[0]).all())

    @property
    def grows(self) -> bool:
        """Whether there are more units than before."""
        return len(self.source) > self.size

    @property
    def new(self) -> Tensor:
        """Which units the smaller layer does not have: bool [units]."""
        return torch.arange(len(self.source)) >= self.size

    def of_blocks(self, features: int) -> WidthMap:
        """The map of the features of units that are so many of them, in a row: their order inside a unit stays."""
        inside = torch.arange(features)
        return WidthMap(self.size * features, (self.source[:, None] * features + inside).reshape(-1))

    def stacked(self, times: int) -> WidthMap:
        """The map of several such layers whose units stand behind one another in one array."""
        return WidthMap(self.size * times, torch.cat([self.source + part * self.size for part in range(times)]))


def width_map(size: int, target: int, copies: Copies, generator: torch.Generator) -> WidthMap:
    """A map from `size` units to `target` of them.

    `even`: the new units are whole rounds of all the old ones, in their order, and what remains are different ones,
    drawn: no unit has more than one copy more than another. `random`: each new unit copies one that is drawn.
    """
    if copies == "random":
        new = torch.randint(size, (target - size,), generator=generator)
    else:
        rounds, rest = divmod(target - size, size)
        drawn = torch.randperm(size, generator=generator)[:rest] if rest else torch.arange(0)
        new = torch.cat([torch.arange(size).repeat(rounds), drawn])
    return WidthMap(size, torch.cat([torch.arange(size), new]))
