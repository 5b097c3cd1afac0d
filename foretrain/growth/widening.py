"""What rules share that make a network wider: maps that fit together, and weights that follow them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from pydantic import Field
from torch import Tensor
from transformers import PretrainedConfig

from foretrain.growth.base import Growth
from foretrain.growth.maps import Copies, WidthMap, width_map
from foretrain.growth.network import (
    Dimension,
    Layout,
    Network,
    Space,
    features_per_head,
    groups,
)
from foretrain.hashing import seed_from
from foretrain.models.roles import Role
from foretrain.section import Number

Maps = Mapping[Space, WidthMap]


class Wider(Growth):
    """Changes every size but the number of layers."""

    def shape(self, source: PretrainedConfig, target: PretrainedConfig) -> PretrainedConfig:
        made = copy.deepcopy(target)
        made.num_hidden_layers = source.num_hidden_layers
        return made

    def grow(self, source: Network, target: PretrainedConfig, seed: int) -> Network:
        layout, made = Layout(target), dict[str, Tensor]()
        for name, role in layout.roles.items():
            made[name] = self.widened(name, role, source, layout, seed)
        return Network(target, made)

    @abstractmethod
    def widened(self, name: str, role: Role, source: Network, layout: Layout, seed: int) -> Tensor:
        """One parameter of the wider network; `layout` is that of the target."""


class Copying(Wider):
    """Every unit of the wider network is a copy of a unit of the smaller one.

    Maps say of which, and they fit together: features between the blocks have one map for the whole network
    (embeddings, norms, what blocks read and write), whole heads are copied with those of keys and values that they
    read, features inside a head stay in their order (rotary positions turn them in pairs), and what an attention or
    feed-forward layer writes inside, its second matrix reads by the same map.

    A matrix's inputs are divided by the number of copies of what they read, so that copies add up to what one was.
    Where the output layer is the embedding, which cannot be divided, the scale and shift of the norm in front of it
    are. Biases, scales and shifts of norms follow their units.
    """

    copies: Copies = "even"
    """`even`: units have as many copies as each other, or one more; `random`: each new unit copies one that is drawn,
    as published. Features between the blocks keep what norms see of them only where all have as many copies."""
    noise: Number = Field(0.0, ge=0)
    """Normal noise on the matrices of the blocks, as a share of each one's root mean square: copies that are equal get
    equal gradients, and without it (or dropout) stay equal."""

    def notes(self, source: PretrainedConfig, target: PretrainedConfig) -> Iterable[str]:
        width, wider = int(source.hidden_size), int(target.hidden_size)
        if wider > width and (self.copies == "random" or wider % width):
            why = "copies are drawn" if self.copies == "random" else f"a width of {wider} is not a multiple of {width}"
            yield (
                f"growth '{self.kind}': {why}, so features between the blocks have unequal numbers of copies, norms "
                "see other means of them, and the grown model only comes near to the function of the small one; "
                "multiples with `copies: even` keep it"
            )

    def grow(self, source: Network, target: PretrainedConfig, seed: int) -> Network:
        grown = super().grow(source, target, seed)
        layout, made = grown.layout, dict(grown.weights)
        if layout.tied:
            share = self.maps(source, layout, None, seed)["width"].share
            for name in layout.last_norm:
                made[name] = made[name] * share.to(made[name])
        for name, role in layout.roles.items() if self.noise else ():
            if role.kind == "matrix" and role.block is not None:
                made[name] = made[name] + _noise(made[name], self.noise, seed_from(seed, "growth", "noise", name))
        return Network(target, made)

    def maps(self, source: Network, layout: Layout, block: int | None, seed: int) -> Maps:
        """The maps of a block (None: outside of them); that of the width is the same everywhere."""
        return _maps(self.copies, _sizes(source.layout), _sizes(layout), block, seed)

    def copied(self, name: str, origin: str, source: Network, layout: Layout, maps: Maps) -> Tensor:
        """A parameter of the target, `name`, from the source's `origin`: copies, with what is read shared out."""
        tensor = source.weights[origin]
        for axis, one in enumerate(layout.dimensions[name]):
            if one.space == "rows":
                continue
            chosen = maps[one.space].stacked(one.stacked)
            tensor = tensor.index_select(axis, chosen.source)
            if one.reads:
                tensor = tensor * along(chosen.share.to(tensor), axis, tensor.ndim)
        return tensor.clone()


def along(values: Tensor, axis: int, dimensions: int) -> Tensor:
    """A vector shaped to act on one axis of a tensor of so many."""
    return values.reshape([-1 if each == axis else 1 for each in range(dimensions)])


def written(dimensions: tuple[Dimension, ...], maps: Maps) -> tuple[int, Tensor] | None:
    """The axis of a parameter that it writes, and which of its units are new there; None where none are."""
    for axis, one in enumerate(dimensions):
        if not one.reads and one.space != "rows" and maps[one.space].grows:
            return axis, maps[one.space].new.repeat(one.stacked)
    return None


Sizes = tuple[int, int, int, int, int]
"""Width, heads of keys and values, attention heads per one of those, features per head, features inside a feed-forward
layer."""


def _sizes(layout: Layout) -> Sizes:
    config = layout.config
    own = groups(config)
    return (
        layout.sizes["width"],
        own,
        int(config.num_attention_heads) // own,
        features_per_head(config),
        layout.sizes["feedforward"],
    )


@cache
def _maps(copies: Copies, small: Sizes, large: Sizes, block: int | None, seed: int) -> Maps:
    def drawn(space: str, place: int, where: int | None) -> WidthMap:
        generator = torch.Generator().manual_seed(seed_from(seed, "growth", space, -1 if where is None else where))
        return width_map(small[place], large[place], copies, generator)

    together, features = drawn("groups", 1, block), small[3]
    return {
        "width": drawn("width", 0, None),
        "heads": together.of_blocks(small[2] * features),
        "groups": together.of_blocks(features),
        "feedforward": drawn("feedforward", 4, block),
    }


def _noise(tensor: Tensor, share: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
    return drawn * share * tensor.square().mean().sqrt()
