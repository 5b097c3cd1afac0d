"""Average task vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from foretrain.merging.rules.base import Combine, Rule
from foretrain.merging.rules.sum import total
from foretrain.parts import Facts

if TYPE_CHECKING:
    from foretrain.merging.vectors import TaskVectors


class Mean(Rule):
    """The mean of the task vectors: weight averaging (a model soup) of the tuned models."""

    kind: Literal["mean"] = "mean"
    facts: ClassVar[Facts] = Facts(
        paper="Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing "
        "inference time",
        arxiv="2203.05482",
        year=2022,
        answers="how do several task vectors become one? they are averaged",
    )

    def over(self, vectors: TaskVectors) -> Combine:
        return lambda name, differences: total(differences) / len(differences)
