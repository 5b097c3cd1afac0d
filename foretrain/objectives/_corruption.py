"""Corruption: a row of tokens becomes what a model reads, what it should predict, where, and how it attends.

    (row, policy, generator) -> (inputs, labels, loss mask, attention)

A policy is a function of one row and a generator that is pure in (seed, position): the same row at the same place is
corrupted alike on any rank, in any batch, however often. Which tokens are chosen and what stands in their place are two
questions, so that units (tokens, words, entities) and replacements combine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foretrain.batch import Batch

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Row = Mapping[str, NDArray[Any]]
"""The tensors of a batch at one row: `tokens`, and whatever stands beside them (`segments`, `valid`)."""


@dataclass(frozen=True, slots=True)
class Corrupted:
    """One row, corrupted.

    Attributes:
        inputs: what the model reads.
        labels: what it should predict at each place.
        mask: the places with a loss.
        prefix: how it attends: so many tokens at the start see each other, and later ones read causally; None where
            all rows of the objective are read alike.
    """

    inputs: Ints
    labels: Ints
    mask: Bools
    prefix: int | None = None


Policy = Callable[[Row, np.random.Generator], Corrupted]


def corrupt(batch: Batch, policy: Policy, purpose: str) -> Batch:
    """Every row of a batch by a policy: adds `inputs`, `labels`, `mask` and, where the policy gives one, `prefix`.

    Args:
        batch: as the stream gives it, on the CPU.
        policy: of one row.
        purpose: a name for its random numbers; policies of other names draw others.
    """
    arrays = {name: tensor.numpy() for name, tensor in batch.items()}
    rows = [
        policy({name: array[row] for name, array in arrays.items()}, batch.generator(row, purpose))
        for row in range(batch.rows)
    ]
    found = {name: torch.from_numpy(np.stack([getattr(row, name) for row in rows])) for name in _TENSORS}
    if rows and rows[0].prefix is not None:
        found["prefix"] = torch.tensor([row.prefix for row in rows])
    return batch.with_(**found)


_TENSORS = ("inputs", "labels", "mask")


@dataclass(frozen=True, slots=True)
class Replacement:
    """What stands in the place of a chosen token: the mask, a random token, or the token itself.

    Attributes:
        mask: id of the mask.
        ordinary: ids that random tokens are drawn from.
        random: share of the chosen tokens that become one of them.
        kept: share of the chosen tokens that stay.
    """

    mask: int
    ordinary: Ints
    random: float = 0.0
    kept: float = 0.0

    def __call__(self, tokens: Ints, chosen: Bools, generator: np.random.Generator) -> Ints:
        """The tokens with those that are chosen replaced; the same random numbers are drawn whichever are."""
        lot, other = generator.random(len(tokens)), generator.integers(len(self.ordinary), size=len(tokens))
        replaced = np.where(lot < self.random, self.ordinary[other], self.mask)
        replaced = np.where((lot >= self.random) & (lot < self.random + self.kept), tokens, replaced)
        return np.where(chosen, replaced, tokens)
