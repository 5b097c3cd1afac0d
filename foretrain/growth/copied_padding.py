"""A control: the smaller network in a corner of the wider one, and small random weights around it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from foretrain.growth.network import Layout, Network
from foretrain.growth.widening import Wider
from foretrain.hashing import seed_from
from foretrain.models.initialise import deviation
from foretrain.models.roles import Role
from foretrain.parts import Facts


class CopiedPadding(Wider):
    """The source's weights stand where they stood, and units that are new are as in a fresh network.

    New rows and columns are drawn at the scale of a fresh initialisation of the target, new scales of norms are 1, new
    biases 0. It has all of the smaller network's weights, and no map between old units and new ones: what a rule of
    growth wins beyond this, it wins by how units are matched.
    """

    kind: Literal["copied_padding"] = "copied_padding"
    facts: ClassVar[Facts] = Facts(
        answers="how does a network become wider? control: its weights in a corner, random ones around them",
        overhead="none once it is built; the smaller network's training was paid before",
    )

    def widened(self, name: str, role: Role, source: Network, layout: Layout, seed: int) -> Tensor:
        given, shape = source.weights[name], layout.shapes[name]
        if role.kind in ("matrix", "embedding", "head"):
            generator = torch.Generator().manual_seed(seed_from(seed, "growth", self.kind, name))
            scale = deviation(role, int(layout.config.hidden_size), int(layout.config.num_hidden_layers))
            made = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(given)
        else:
            made = given.new_full(shape, 1.0 if role.kind == "norm" else 0.0)
        corner = []
        for one, small, large in zip(layout.dimensions[name], given.shape, shape, strict=True):
            layers = torch.arange(one.stacked)[:, None]
            inside = torch.arange(small // one.stacked)
            corner.append((layers * (large // one.stacked) + inside).reshape(-1))
        made[torch.meshgrid(*corner, indexing="ij")] = given
        return made
