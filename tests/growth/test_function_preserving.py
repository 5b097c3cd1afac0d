"""FPI: the grown network computes what the small one did, whatever its layout; and what the maps do."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from foretrain.growth.advanced_knowledge import AdvancedKnowledge
from foretrain.growth.base import Growth
from foretrain.growth.function_preserving import FunctionPreserving
from foretrain.growth.maps import WidthMap, width_map
from foretrain.growth.network import Layout, Network
from foretrain.models.bert import Bert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.scratch import Scratch

SPECIAL = {"bos": 0, "eos": 0, "pad": None, "mask": 2}
IDS = torch.arange(24).reshape(2, 12) + 3
LAYOUTS: list[tuple[type[Scratch], dict[str, Any]]] = [
    (Llama, {}),
    (Llama, {"kv_heads": 2}),
    (Gpt2, {}),
    (Bert, {}),
]


def small(kind: type[Scratch] = Llama, seed: int = 1, **fields: Any) -> Any:
    """A model in float64 with every parameter away from its usual start (no zero bias hides a mistake)."""
    part = kind(**{"layers": 2, "width": 32, "heads": 4, "feedforward": 40, "context": 16, "preset": "0.2M", **fields})
    model = part.build(part.config(60, SPECIAL), 0).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.2)
    return model


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's RMS norm rounds to float32 inside, whatever it is given."""

    def forward(self: Any, hidden: Tensor) -> Tensor:
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)
        found: Tensor = self.weight * hidden * scale
        return found

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def grown(model: Any, rule: Growth, seed: int = 0, **sizes: int) -> Any:
    """A model grown by one rule; sizes as a config of `transformers` names them."""
    target = copy.deepcopy(model.config)
    for name, value in sizes.items():
        setattr(target, name, value)
    network = Network.of(model)
    return rule.grow(network, rule.shape(network.config, target), seed).model()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def twice(model: Any, times: int = 2) -> dict[str, int]:
    """Sizes of a model that is so many times as wide."""
    config = model.config
    sizes = {
        "hidden_size": times * config.hidden_size,
        "num_attention_heads": times * config.num_attention_heads,
        "n_inner" if hasattr(config, "n_inner") else "intermediate_size": times * 40,
    }
    if hasattr(config, "num_key_value_heads"):
        sizes["num_key_value_heads"] = times * config.num_key_value_heads
    return sizes


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "fields"), LAYOUTS, ids=["llama", "grouped", "gpt2", "bert"])
@pytest.mark.parametrize("times", [2, 3])
def test_even_copies_keep_the_function(kind: type[Scratch], fields: dict[str, Any], tied: bool, times: int) -> None:
    model = small(kind, tied=tied, **fields)
    before = logits(model)
    large = grown(model, FunctionPreserving(), **twice(model, times))
    assert large.config.hidden_size == times * 32 and before.std() > 0.1
    torch.testing.assert_close(logits(large), before, atol=1e-12 * float(before.abs().max()), rtol=0)
    torch.testing.assert_close(logits(large.float()), before.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("copies", ["even", "random"])
@pytest.mark.parametrize(("kind", "fields"), LAYOUTS, ids=["llama", "grouped", "gpt2", "bert"])
def test_uneven_copies_of_feedforward_units_keep_it(kind: type[Scratch], fields: dict[str, Any], copies: Any) -> None:
    model = small(kind, **fields)
    inner = "n_inner" if hasattr(model.config, "n_inner") else "intermediate_size"
    large = grown(model, FunctionPreserving(copies=copies), **{inner: 93})
    torch.testing.assert_close(logits(large), logits(model), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("copies", ["even", "random"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_uneven_copies_of_heads_keep_it(copies: Any, kv_heads: int) -> None:
    model = small(Llama, kv_heads=kv_heads)
    sizes = {"num_attention_heads": 10, "num_key_value_heads": 10 * kv_heads // 4}
    large = grown(model, FunctionPreserving(copies=copies), **sizes)
    assert large.config.head_dim == 8
    torch.testing.assert_close(logits(large), logits(model), atol=1e-12, rtol=1e-12)


def test_uneven_copies_of_the_width_only_come_near() -> None:
    model = small(Llama)
    before = logits(model)
    rule = FunctionPreserving()
    large = grown(model, rule, hidden_size=40)
    error = float((logits(large) - before).square().mean().sqrt() / before.std())
    assert 1e-3 < error < 0.7
    assert "not a multiple of 32" in " ".join(rule.notes(model.config, large.config))
    assert "copies are drawn" in " ".join(FunctionPreserving(copies="random").notes(model.config, large.config))
    assert not list(rule.notes(model.config, grown(model, rule, **twice(model)).config))


def test_the_formula_of_one_matrix_element_by_element() -> None:
    """U[j, i] = W[g_out(j), g_in(i)] / C(g_in(i)), as torch stores it; biases follow their unit."""
    model = small(Gpt2, tied=False)
    rule = FunctionPreserving(copies="random")
    large = grown(model, rule, seed=5, **twice(model))
    maps = rule.maps(Network.of(model), Layout(large.config), 1, 5)
    was, now = model.transformer.h[1].mlp.c_fc, large.transformer.h[1].mlp.c_fc
    reads, writes = (maps[space].source.tolist() for space in ("width", "feedforward"))
    for i, j in [(0, 0), (40, 3), (63, 79), (7, 50), (33, 41)]:
        expected = was.weight[reads[i], writes[j]].item() / reads.count(reads[i])
        assert now.weight[i, j].item() == pytest.approx(expected, abs=1e-15)
        assert now.bias[j].item() == was.bias[writes[j]].item()
    stacked = large.transformer.h[1].attn.c_attn.bias.view(3, 64)
    heads = maps["heads"].source
    assert torch.equal(stacked, model.transformer.h[1].attn.c_attn.bias.view(3, 32)[:, heads])
    assert torch.equal(heads.view(8, 8) % 8, torch.arange(8).expand(8, 8))  # features of a head stay in their order


def test_noise_is_of_the_size_it_says_and_on_the_blocks_matrices_alone() -> None:
    model = small(Llama)
    plain, noisy = (grown(model, FunctionPreserving(noise=noise), **twice(model)) for noise in (0.0, 0.01))
    roles = Layout(plain.config).roles
    for (name, a), (_, b) in zip(plain.named_parameters(), noisy.named_parameters(), strict=True):
        share = float((a - b).square().mean().sqrt() / a.square().mean().sqrt())
        inside = roles[name].kind == "matrix" and roles[name].block is not None
        assert share == (pytest.approx(0.01, rel=0.1) if inside else 0.0), name
    again = grown(model, FunctionPreserving(noise=0.01), **twice(model))
    other = grown(model, FunctionPreserving(noise=0.01), seed=1, **twice(model))
    assert torch.equal(logits(again), logits(noisy)) and not torch.equal(logits(other), logits(noisy))


def test_copies_stay_equal_without_noise_and_part_with_it() -> None:
    """The width that is used does not grow: equal copies get equal gradients."""

    def gradient(rule: Growth) -> Tensor:
        model = small(Llama)
        large = grown(model, rule, **twice(model))
        large(input_ids=IDS, labels=IDS).loss.backward()
        return large.model.layers[0].mlp.up_proj.weight.grad[:, :32]

    rows = gradient(FunctionPreserving())
    torch.testing.assert_close(rows[:40], rows[40:], atol=1e-12, rtol=1e-9)
    for rule in (FunctionPreserving(noise=0.01), AdvancedKnowledge()):
        rows = gradient(rule)
        assert float((rows[:40] - rows[40:]).norm() / rows.norm()) > 1e-3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 40), st.sampled_from(["even", "random"]), st.integers(0, 5))
def test_maps_keep_sums(size: int, more: int, copies: Any, seed: int) -> None:
    one = width_map(size, size + more, copies, torch.Generator().manual_seed(seed))
    assert one.source[:size].tolist() == list(range(size)) and len(one.source) == size + more
    assert int(one.source.max()) < size
    # What each copy passes on adds up to what one unit did.
    summed = torch.zeros(size, dtype=torch.float64).index_add_(0, one.source, one.share)
    torch.testing.assert_close(summed, torch.ones(size, dtype=torch.float64))
    if copies == "even":
        counts = torch.bincount(one.source, minlength=size)
        assert int(counts.max() - counts.min()) <= 1 and one.even == (more % size == 0)
    assert one.grows == (more > 0) and int(one.new.sum()) == more
    wide = one.of_blocks(3)
    assert math.prod(wide.source.shape) == 3 * (size + more)
    assert torch.equal(wide.source.view(-1, 3), one.source[:, None] * 3 + torch.arange(3))


def test_stacked_maps_do_not_mix_layers() -> None:
    one = WidthMap(2, torch.tensor([0, 1, 1]))
    assert one.stacked(3).source.tolist() == [0, 1, 1, 2, 3, 3, 4, 5, 5]
    assert one.stacked(3).share.tolist() == [1, 0.5, 0.5] * 3
