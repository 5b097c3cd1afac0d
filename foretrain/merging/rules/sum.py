"""Add task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from foretrain.merging.rules.base import Combine, Rule
from foretrain.parts import Facts

if TYPE_CHECKING:
    from foretrain.merging.vectors import TaskVectors


class Sum(Rule):
    """The sum of the task vectors: task arithmetic."""

    kind: Literal["sum"] = "sum"
    facts: ClassVar[Facts] = Facts(
        paper="Editing Models with Task Arithmetic",
        arxiv="2212.04089",
        year=2022,
        answers="how do several task vectors become one? they are added",
    )

    def over(self, vectors: TaskVectors) -> Combine:
        return lambda name, differences: total(differences)


def total(differences: Sequence[Tensor]) -> Tensor:
    """The sum of some tensors."""
    found = differences[0].clone()
    for each in differences[1:]:
        found += each
    return found
