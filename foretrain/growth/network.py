"""Network: the weights of a model with its shape, and what each of their dimensions is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from foretrain.errors import RequestError
from foretrain.models.base import from_config
from foretrain.models.roles import Role, output_layer, parameter_roles

Space = Literal["rows", "width", "heads", "groups", "feedforward"]
"""What a dimension counts: ids or positions, which never grow (`rows`); features between the blocks (`width`); those of
all attention heads (`heads`), and of those of keys and values (`groups`); those inside a feed-forward layer."""

_PASSES: dict[str, tuple[Space, Space, int]] = {
    r"(self_attn\.q_proj|self\.query)": ("width", "heads", 1),
    r"(self_attn\.[kv]_proj|self\.(key|value))": ("width", "groups", 1),
    r"attn\.c_attn": ("width", "heads", 3),
    r"(self_attn\.o_proj|attn\.c_proj|attention\.output\.dense)": ("heads", "width", 1),
    r"(mlp\.(gate|up)_proj|mlp\.c_fc|intermediate\.dense)": ("width", "feedforward", 1),
    r"(mlp\.down_proj|mlp\.c_proj|(?<!attention\.)output\.dense)": ("feedforward", "width", 1),
    r"predictions\.transform\.dense": ("width", "width", 1),
}
"""What a matrix reads, what it writes, and how many such layers are stacked in it, by the end of its module's path."""
_KNOWN = ("llama", "gpt2", "bert")
"""Types of models whose blocks are put together as these rules take them to be (a type may share the names of modules
and still scale its embeddings, say)."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of a parameter.

    Attributes:
        space: what it counts.
        reads: whether its units come in here; else they are written.
        stacked: how many layers of that space stand behind one another in it.
    """

    space: Space
    reads: bool
    stacked: int = 1


@dataclass(frozen=True)
class Network:
    """A model as plain tensors.

    Attributes:
        config: its shape.
        weights: every parameter by name.
    """

    config: PretrainedConfig
    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Network:
        """The network of a model; tensors are shared, and those that are tied stand under each of their names."""
        named = model.named_parameters(remove_duplicate=False)
        return cls(model.config, {name: parameter.detach() for name, parameter in named})

    @cached_property
    def layout(self) -> Layout:
        """What its dimensions are."""
        return Layout(self.config)

    @torch.no_grad()
    def model(self) -> PreTrainedModel:
        """The model that holds these weights, in their precision and in eval mode."""
        with no_init_weights(), torch.random.fork_rng(devices=[]):
            made: Any = from_config(self.config)
        made.tie_weights()
        made.to(dtype=next(iter(self.weights.values())).dtype)
        for name, parameter in made.named_parameters():
            parameter.copy_(self.weights[name])
        grown: PreTrainedModel = made.eval()
        return grown


class Layout:
    """What the dimensions of the parameters of a config are.

    Attributes:
        config: whose they are.
        roles: role of each parameter, by name.
        dimensions: of each parameter, by name, in the order that its tensor has them.
        sizes: units of each space, by its name; those of `rows` differ from parameter to parameter.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        refuse_unknown(config)
        self.config = config
        with torch.device("meta"):
            model = from_config(config)
        self.roles: dict[str, Role] = parameter_roles(model)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        self.dimensions: dict[str, tuple[Dimension, ...]] = {}
        head = output_layer(model)
        modules = dict(model.named_modules())
        for name, role in self.roles.items():
            self.dimensions[name] = _dimensions(name, role, modules[role.path], modules[role.path] is head)
        self.sizes: dict[Space, int] = {
            "width": int(config.hidden_size),
            "heads": int(config.num_attention_heads) * features_per_head(config),
            "groups": groups(config) * features_per_head(config),
            "feedforward": feedforward(config),
        }
        self._refuse_odd_shapes()

    @property
    def last_norm(self) -> set[str]:
        """The scale and shift of the norm in front of the output layer: the last one outside of the blocks."""
        paths = [role.path for role in self.roles.values() if role.kind == "norm" and role.block is None]
        return {name for name, role in self.roles.items() if role.path == paths[-1]}

    @property
    def tied(self) -> bool:
        """Whether the output layer is the input embedding."""
        return any(role.tied for role in self.roles.values())

    def _refuse_odd_shapes(self) -> None:
        for name, dimensions in self.dimensions.items():
            for length, one in zip(self.shapes[name], dimensions, strict=True):
                if one.space != "rows" and length != self.sizes[one.space] * one.stacked:
                    raise RequestError(
                        f"growth: {name} of this {self.config.model_type} has a dimension of {length} where "
                        f"{self.sizes[one.space] * one.stacked} ({one.space}) are expected, so it cannot be grown."
                    )


def refuse_unknown(config: PretrainedConfig) -> None:
    """See that rules of growth know this kind of model.

    Raises:
        RequestError: they do not.
    """
    if config.model_type not in _KNOWN:
        raise RequestError(
            f"model: a model of type '{config.model_type}' cannot be grown; those of types {', '.join(_KNOWN)} can."
        )


def features_per_head(config: PretrainedConfig) -> int:
    """Features of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def groups(config: PretrainedConfig) -> int:
    """Heads of keys and values."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def feedforward(config: PretrainedConfig) -> int:
    """Features inside a feed-forward layer."""
    given: Any = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None)
    return int(given or 4 * config.hidden_size)


def block_of(name: str, number: int) -> str:
    """The name of the same parameter in another block."""
    return re.sub(r"(?<=\.)\d+(?=\.)", str(number), name, count=1)


def _dimensions(name: str, role: Role, module: nn.Module, head: bool) -> tuple[Dimension, ...]:
    rows, width = Dimension("rows", False), Dimension("width", False)
    if head:
        return (rows, Dimension("width", True)) if not name.endswith("bias") else (rows,)
    if role.kind == "embedding":
        return rows, width
    for pattern, (reads, writes, stacked) in _PASSES.items():
        if re.search(rf"(^|\.){pattern}$", role.path):
            coming, going = Dimension(reads, True), Dimension(writes, False, stacked)
            if role.kind == "bias":
                return (going,)
            return (coming, going) if isinstance(module, Conv1D) else (going, coming)
    if role.path.endswith("predictions") and role.kind == "bias":
        return (rows,)
    # What is left are norms: the scale is of role `norm`, and the shift a bias of the same module.
    return (width,)
