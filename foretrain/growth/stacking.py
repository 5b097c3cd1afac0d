"""Deepen a network by stacking its layers."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

from torch import Tensor
from transformers import PretrainedConfig

from foretrain.growth.base import Growth
from foretrain.growth.network import Layout, Network, block_of
from foretrain.parts import Facts


class Stacking(Growth):
    """Layers stand on top of one another as often as they fit, and what is missing are copies of the topmost ones.

    From L to M layers: k = floor(M / L) times all of them, then the top M - k L again. What is outside of the blocks
    stays. The function is not kept.
    """

    kind: Literal["stacking"] = "stacking"
    facts: ClassVar[Facts] = Facts(
        paper="Efficient Training of BERT by Progressively Stacking",
        year=2019,
        answers="how does a network become deeper? by copies of its layers on top of them",
        overhead="none once it is built; the smaller network's training was paid before",
    )

    def shape(self, source: PretrainedConfig, target: PretrainedConfig) -> PretrainedConfig:
        made = copy.deepcopy(source)
        made.num_hidden_layers = target.num_hidden_layers
        return made

    def grow(self, source: Network, target: PretrainedConfig, seed: int) -> Network:
        order = stacked(int(source.config.num_hidden_layers), int(target.num_hidden_layers))
        made: dict[str, Tensor] = {}
        for name, role in Layout(target).roles.items():
            origin = name if role.block is None else block_of(name, order[role.block])
            made[name] = source.weights[origin].clone()
        return Network(target, made)


def stacked(layers: int, target: int) -> list[int]:
    """Which of `layers` each of `target` layers is a copy of."""
    whole, missing = divmod(target, layers)
    return list(range(layers)) * whole + list(range(layers - missing, layers))
