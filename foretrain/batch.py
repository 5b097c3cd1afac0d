"""Batch: a named set of tensors, the unit that flows from the stream through objective and steering to the model.

Text uses `tokens`; an objective's `prepare` adds `inputs`, `labels` and `mask`; other modalities add their own names
(`pixels`, `frames`). Every tensor's first dimension is the row (one window, one image).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from foretrain.hashing import seed_from


class Batch(Mapping[str, Tensor]):
    """Tensors by name, all with the same number of rows, and where they stand in the stream.

    Attributes:
        seed: the run's seed; with `positions` it makes every random choice about a row a pure function of its place.
        step: the step this batch belongs to.
        positions: int64 [rows], each row's place in the endless stream of windows.
        domains: names of the domains that the `domain` tensor numbers.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], *, seed: int, step: int, positions: Tensor, domains: tuple[str, ...]
    ) -> None:
        self._tensors = dict(tensors)
        self.seed = seed
        self.step = step
        self.positions = positions
        self.domains = domains

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def rows(self) -> int:
        """Number of rows (windows) in this batch, on this rank."""
        return int(self.positions.shape[0])

    def with_(self, **tensors: Tensor) -> Batch:
        """The same batch with some tensors added or replaced."""
        return self._like({**self._tensors, **tensors}, self.positions)

    def take(self, rows: slice | Tensor) -> Batch:
        """The batch of some rows (a slice, or an index tensor)."""
        return self._like({name: tensor[rows] for name, tensor in self._tensors.items()}, self.positions[rows])

    def micro(self, rows: int) -> Iterator[Batch]:
        """The batch in pieces of at most `rows` rows, in order."""
        for start in range(0, self.rows, rows):
            yield self.take(slice(start, start + rows))

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return self._like(
            {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors.items()}, self.positions
        )

    def generator(self, row: int, purpose: str) -> np.random.Generator:
        """A random generator for one row and one purpose: pure in (seed, position), so the same on any rank."""
        return np.random.Generator(np.random.Philox(key=seed_from(self.seed, int(self.positions[row]), purpose)))

    def _like(self, tensors: Mapping[str, Tensor], positions: Tensor) -> Batch:
        return Batch(tensors, seed=self.seed, step=self.step, positions=positions, domains=self.domains)
