"""AKI, stacking and the control: each against an explicit statement of where every unit comes from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain.growth.advanced_knowledge import AdvancedKnowledge
from foretrain.growth.base import Growth
from foretrain.growth.copied_padding import CopiedPadding
from foretrain.growth.function_preserving import FunctionPreserving
from foretrain.growth.network import Layout, Network
from foretrain.growth.stacking import Stacking, stacked
from foretrain.models.bert import Bert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.initialise import deviation
from foretrain.models.llama import Llama
from foretrain.models.scratch import Scratch

SPECIAL = {"bos": 0, "eos": 0, "pad": None, "mask": 2}
KINDS = [Llama, Gpt2, Bert]


def small(kind: type[Scratch] = Llama, **fields: Any) -> Any:
    part = kind(**{"layers": 3, "width": 16, "heads": 2, "feedforward": 24, "context": 16, **fields})
    model = part.build(part.config(40, SPECIAL), 0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return model


def grown(model: Any, rule: Growth, **sizes: int) -> dict[str, Tensor]:
    target = copy.deepcopy(model.config)
    for name, value in sizes.items():
        setattr(target, name, value)
    network = Network.of(model)
    found = rule.grow(network, rule.shape(network.config, target), 0)
    return dict(found.weights)


def twice(model: Any) -> dict[str, int]:
    inner = "n_inner" if hasattr(model.config, "n_inner") else "intermediate_size"
    grouped = {"num_key_value_heads": 4} if hasattr(model.config, "num_key_value_heads") else {}
    return {"hidden_size": 32, "num_attention_heads": 4, inner: 48, **grouped}


def test_knowledge_of_the_layer_above_element_by_element() -> None:
    model = small(Llama, tied=False)
    now, was = grown(model, AdvancedKnowledge(), **twice(model)), dict(model.named_parameters())
    for layer, above in ((0, 1), (1, 2), (2, 2)):  # the topmost has none above and copies itself
        for path, reads, writes in (
            ("self_attn.q_proj", 16, 16),
            ("self_attn.o_proj", 16, 16),
            ("mlp.up_proj", 16, 24),
            ("mlp.down_proj", 24, 16),
        ):
            found = now[f"model.layers.{layer}.{path}.weight"]
            own, other = (was[f"model.layers.{number}.{path}.weight"] for number in (layer, above))
            for i in (0, 5, writes - 1, writes, writes + 3, 2 * writes - 1):
                for j in (0, 2, reads + 2, 2 * reads - 1):
                    origin = own if i < writes else other
                    assert found[i, j].item() == origin[i % writes, j % reads].item() / 2
    for name in ("model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"):
        assert torch.equal(now[name][..., 16:], was[name])
    assert torch.equal(now["lm_head.weight"][:, 16:], was["lm_head.weight"] / 2)


@pytest.mark.parametrize("kind", [Gpt2, Bert])
def test_borrowed_units_bring_their_biases(kind: type[Scratch]) -> None:
    model = small(kind)
    now, was = grown(model, AdvancedKnowledge(), **twice(model)), dict(model.named_parameters())
    if kind is Bert:
        name = "bert.encoder.layer.{}.attention.self.query.bias"
        assert torch.equal(now[name.format(0)], torch.cat([was[name.format(0)], was[name.format(1)]]))
        norm = "bert.encoder.layer.{}.output.LayerNorm.bias"
    else:
        name = "transformer.h.{}.attn.c_attn.bias"
        own, above = (was[name.format(layer)].view(3, 16) for layer in (0, 1))
        assert torch.equal(now[name.format(0)].view(3, 32), torch.cat([own, above], 1))
        norm = "transformer.h.{}.ln_1.bias"
    assert torch.equal(now[norm.format(0)], was[norm.format(0)].repeat(2))


def test_it_is_function_preserving_where_layers_are_alike() -> None:
    """With every layer the same, what is borrowed from above is a copy of one's own."""
    model = small(Llama, layers=1)
    deep = Network.of(model)
    target = copy.deepcopy(model.config)
    target.num_hidden_layers = 3
    alike = Stacking().grow(deep, Stacking().shape(deep.config, target), 0)
    for name, value in twice(model).items():
        setattr(target, name, value)
    made = [
        rule.grow(alike, rule.shape(alike.config, target), 0) for rule in (AdvancedKnowledge(), FunctionPreserving())
    ]
    for name in made[0].weights:
        assert torch.equal(made[0].weights[name], made[1].weights[name]), name


@pytest.mark.parametrize(
    ("layers", "target", "order"),
    [(3, 6, [0, 1, 2, 0, 1, 2]), (3, 8, [0, 1, 2, 0, 1, 2, 1, 2]), (3, 3, [0, 1, 2]), (2, 5, [0, 1, 0, 1, 1])],
)
def test_the_order_of_stacked_layers(layers: int, target: int, order: list[int]) -> None:
    assert stacked(layers, target) == order


@pytest.mark.parametrize("kind", KINDS)
def test_stacking_copies_whole_layers(kind: type[Scratch]) -> None:
    model = small(kind)
    was = dict(model.named_parameters())
    target = copy.deepcopy(model.config)
    target.num_hidden_layers = 5
    network = Network.of(model)
    made = Stacking().grow(network, Stacking().shape(network.config, target), 0)
    prefix = {Llama: "model.layers", Gpt2: "transformer.h", Bert: "bert.encoder.layer"}[kind]
    assert set(made.weights) == set(Layout(made.config).shapes)
    for name, weight in made.weights.items():
        origin = name
        for layer, source in ((3, 1), (4, 2)):
            origin = origin.replace(f"{prefix}.{layer}.", f"{prefix}.{source}.")
        assert torch.equal(weight, was[origin]), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_has_the_source_in_a_corner(kind: type[Scratch]) -> None:
    model = small(kind)
    was, now = dict(model.named_parameters()), grown(model, CopiedPadding(), **twice(model))
    target = Layout(Network.of(model).config)
    for name, weight in now.items():
        old = was[name]
        stack = 3 if "c_attn" in name else 1
        parts, before = weight.chunk(stack, -1), old.chunk(stack, -1)
        for part, piece in zip(parts, before, strict=True):
            corner = part[tuple(slice(length) for length in piece.shape)]
            assert torch.equal(corner, piece), name
            rest = part[..., piece.shape[-1] :]
            role = target.roles[name]
            if role.kind in ("matrix", "embedding", "head") and rest.numel() > 200:
                assert float(rest.std()) == pytest.approx(deviation(role, 32, 3), rel=0.3)
            elif role.kind in ("norm", "bias") and rest.numel():
                assert set(rest.tolist()) == {1.0 if role.kind == "norm" else 0.0}


def test_rules_take_any_order() -> None:
    """Width and depth do not meddle: copies of layers that were widened are widened copies of layers."""
    model = small(Llama)
    target = copy.deepcopy(model.config)
    for name, value in {**twice(model), "num_hidden_layers": 6}.items():
        setattr(target, name, value)
    made = []
    for rules in ([FunctionPreserving(), Stacking()], [Stacking(), FunctionPreserving()]):
        network = Network.of(model)
        for rule in rules:
            network = rule.grow(network, rule.shape(network.config, target), 0)
        made.append(network)
    assert made[0].config.num_hidden_layers == made[1].config.num_hidden_layers == 6
    for name in made[0].weights:
        assert torch.equal(made[0].weights[name], made[1].weights[name]), name
