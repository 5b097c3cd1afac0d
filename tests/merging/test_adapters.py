"""Adapters as models, against PEFT's own merging."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from foretrain.errors import RequestError
from foretrain.merging.lines import Lines
from foretrain.merging.weights import open_weights
from tests.merging.folders import load, make, numbers, save


def adapter(base: Path, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """A random adapter of a folder's model; gives the weights of the model that PEFT merges."""
    model = get_peft_model(load(base), LoraConfig(r=3, **settings))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    return {name: parameter.detach().clone() for name, parameter in merged.named_parameters()}


@pytest.mark.parametrize("rank_stable", [False, True])
def test_base_and_adapter_are_the_merged_model(rank_stable: bool, tmp_path: Path) -> None:
    base = open_weights("base", save(make(), tmp_path / "base"))
    targets = ["q_proj", "down_proj"]
    expected = adapter(base.folder, tmp_path / "a", lora_alpha=5, target_modules=targets, use_rslora=rank_stable)
    found = open_weights("tuned", tmp_path / "a", base)
    for name in base.names:
        torch.testing.assert_close(found.read(name).float(), expected[name], rtol=1e-6, atol=1e-7)
    assert not torch.equal(
        found.read("model.layers.1.self_attn.q_proj.weight"), base.read("model.layers.1.self_attn.q_proj.weight")
    )
    assert found.hash != base.hash


def test_factors_of_turned_matrices(tmp_path: Path) -> None:
    settings = GPT2Config(vocab_size=390, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    base = open_weights("base", save(GPT2LMHeadModel(settings), tmp_path / "base"))
    expected = adapter(base.folder, tmp_path / "a", target_modules=["c_attn"], fan_in_fan_out=True)
    found = open_weights("tuned", tmp_path / "a", base)
    for name in base.names:
        torch.testing.assert_close(found.read(name).float(), expected[name], rtol=1e-6, atol=1e-7)


def test_a_product_is_scaled_once_at_each_depth(tmp_path: Path) -> None:
    """And not each factor, which would scale by the square."""
    base = save(make(), tmp_path / "base")
    tuned, plain = adapter(base, tmp_path / "a", target_modules=["q_proj"]), numbers(base)
    Lines(base=str(base), tuned=[str(tmp_path / "a")], alpha=0.25).write([], tmp_path / "out")
    made = numbers(tmp_path / "out")
    for block, factor in enumerate((0.25, 0.5, 0.75, 1.0)):
        name = f"model.layers.{block}.self_attn.q_proj.weight"
        expected = plain[name] + factor * (tuned[name].double() - plain[name])
        torch.testing.assert_close(made[name], expected, rtol=1e-6, atol=1e-7)


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    base = open_weights("base", save(make(layers=2), tmp_path / "base"))
    adapter(save(make(layers=3), tmp_path / "deep"), tmp_path / "other", target_modules=["q_proj"])
    with pytest.raises(RequestError, match=r"does not fit merge\.base .*no weight 'model\.layers\.2\..*did you mean"):
        open_weights("tuned", tmp_path / "other", base)
    with pytest.raises(RequestError, match=r"is an adapter; it can be a tuned model"):
        open_weights("base", tmp_path / "other")
    adapter(save(make(layers=2, width=32), tmp_path / "wide"), tmp_path / "wider", target_modules=["q_proj"])
    with pytest.raises(RequestError, match=r"its factors of .* make \[32, 32\], and the weight is \[16, 16\]"):
        open_weights("tuned", tmp_path / "wider", base)
    own = tmp_path / "own"
    adapter(base.folder, own, target_modules=["q_proj"])
    tensors = load_file(own / "adapter_model.safetensors")
    half = {name: tensor for name, tensor in tensors.items() if not name.endswith("0.self_attn.q_proj.lora_B.weight")}
    save_file(half, own / "adapter_model.safetensors")
    with pytest.raises(RequestError, match=r"has one factor of 'model\.layers\.0\.self_attn\.q_proj' only"):
        open_weights("tuned", own, base)
    save_file({**tensors, "base_model.model.model.norm.weight": torch.ones(16)}, own / "adapter_model.safetensors")
    with pytest.raises(RequestError, match=r"is no factor of a matrix"):
        open_weights("tuned", own, base)
    settings = json.loads((own / "adapter_config.json").read_text())
    (own / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True}))
    with pytest.raises(RequestError, match=r"uses use_dora, which is not read here"):
        open_weights("tuned", own, base)
    (own / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(RequestError, match=r"the adapter in .*own cannot be read"):
        open_weights("tuned", own, base)
