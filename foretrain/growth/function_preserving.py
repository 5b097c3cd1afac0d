"""Widen a network by copies of its units, so that it computes what it did."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from foretrain.growth.network import Layout, Network
from foretrain.growth.widening import Copying
from foretrain.models.roles import Role
from foretrain.parts import Facts


class FunctionPreserving(Copying):
    """FPI, function-preserving initialisation (Net2Wider, for transformers).

    Every unit of the wider network copies one of the smaller, and what reads it is divided by the number of its copies.
    Heads and feed-forward units may have any numbers of copies; features between the blocks the same number, for norms
    to see what they saw. Then the logits are those of the smaller network, to rounding.

    Copies of a unit stay equal while nothing tells them apart: the width that is used does not grow. `noise` breaks the
    tie, and so does `advanced_knowledge`.
    """

    kind: Literal["function_preserving"] = "function_preserving"
    facts: ClassVar[Facts] = Facts(
        paper="bert2BERT: Towards Reusable Pretrained Language Models",
        arxiv="2110.07143",
        year=2021,
        answers="how does a network become wider? by copies that add up to what it computed",
        overhead="none once it is built; the smaller network's training was paid before",
    )

    def widened(self, name: str, role: Role, source: Network, layout: Layout, seed: int) -> Tensor:
        return self.copied(name, name, source, layout, self.maps(source, layout, role.block, seed))
