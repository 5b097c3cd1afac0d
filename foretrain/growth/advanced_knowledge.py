"""Widen a network by its own units and those of the layer above."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from foretrain.growth.network import Layout, Network, block_of
from foretrain.growth.widening import Copying, along, written
from foretrain.models.roles import Role
from foretrain.parts import Facts


class AdvancedKnowledge(Copying):
    """AKI, advanced-knowledge initialisation.

    As `function_preserving`, but the units that a matrix gains are copies of the same layer's in the block above, with
    their biases: layer l gets what layer l + 1 has learned. The last block, which has none above, the embeddings, the
    norms and the output layer are widened by copies of their own. The function is not kept. In exchange nothing has to
    break a tie between copies, for there are none inside the blocks.
    """

    kind: Literal["advanced_knowledge"] = "advanced_knowledge"
    facts: ClassVar[Facts] = Facts(
        paper="bert2BERT: Towards Reusable Pretrained Language Models",
        arxiv="2110.07143",
        year=2021,
        answers="how does a network become wider? by its own units and those of the layer above",
        overhead="none once it is built; the smaller network's training was paid before",
    )

    def widened(self, name: str, role: Role, source: Network, layout: Layout, seed: int) -> Tensor:
        maps = self.maps(source, layout, role.block, seed)
        own = self.copied(name, name, source, layout, maps)
        new = written(layout.dimensions[name], maps)
        if role.block is None or new is None or not _of_matrix(name, layout):
            return own
        above = block_of(name, role.block + 1)
        if above not in source.weights:
            return own
        borrowed = self.copied(name, above, source, layout, self.maps(source, layout, role.block + 1, seed))
        axis, units = new
        return torch.where(along(units, axis, own.ndim), borrowed, own)


def _of_matrix(name: str, layout: Layout) -> bool:
    """Whether a parameter is a matrix or the bias of one (and not a norm's scale or shift)."""
    path = layout.roles[name].path
    return any(role.path == path and role.kind == "matrix" for role in layout.roles.values())
