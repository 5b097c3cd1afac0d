"""Accelerated models compute what the plain ones do, and step aside where they cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig, PreTrainedModel, Qwen2Config
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from foretrain.kernels import accelerate as kernels
from foretrain.kernels.accelerate import accelerate, restore
from foretrain.kernels.attention import BLOCK

SHAPE: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.2}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=4),
    "llama-grouped": LlamaConfig(**SHAPE, num_key_value_heads=2),
    "llama-bias": LlamaConfig(**SHAPE, num_key_value_heads=1, attention_bias=True, mlp_bias=True, head_dim=16),
    "gpt2": GPT2Config(**GPT2),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=2),
    "gemma": GemmaConfig(**SHAPE, num_key_value_heads=2, head_dim=8),
}


def build(name: str, **changes: Any) -> PreTrainedModel:
    config = copy.deepcopy(CONFIGS[name])
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return made


def pair(name: str, **changes: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    plain = build(name, **changes)
    fast = copy.deepcopy(plain)
    accelerate(fast)
    return plain, fast


def replaced(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules() if "forward" in vars(module)}


def ids(length: int, rows: int = 2) -> Tensor:
    return torch.randint(61, (rows, length), generator=torch.Generator().manual_seed(length))


def results(model: PreTrainedModel, tokens: Tensor, **inputs: Any) -> list[Tensor]:
    logits = model(input_ids=tokens, use_cache=False, **inputs).logits.float()
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return [logits.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def assert_near(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("length", [2, 31, BLOCK, BLOCK + 1, 2 * BLOCK + 9])
@pytest.mark.parametrize("name", ["llama", "llama-grouped", "llama-bias", "gpt2"])
def test_logits_and_gradients_are_those_of_the_plain_model(name: str, length: int) -> None:
    plain, fast = pair(name)
    assert replaced(fast) >= ({"GPT2Attention"} if name == "gpt2" else {"LlamaAttention", "LlamaMLP", "LlamaRMSNorm"})
    plain.train(), fast.train()
    if name == "gpt2":  # dropout is tried below
        for model in (plain, fast):
            model.apply(lambda module: setattr(module, "p", 0.0) if isinstance(module, nn.Dropout) else None)
    assert_near(results(fast, ids(length)), results(plain, ids(length)))


@pytest.mark.parametrize("name", ["qwen2", "gemma"])
def test_other_families_give_the_same_whether_or_not_they_are_known(name: str) -> None:
    plain, fast = pair(name)
    assert_near(results(fast, ids(40)), results(plain, ids(40)))


def test_an_accelerated_forward_really_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = kernels.causal_attention
    monkeypatch.setattr(kernels, "causal_attention", lambda *given: (calls.append(1), real(*given))[1])
    _, fast = pair("llama")
    calls.clear()
    fast(input_ids=ids(9), use_cache=False)
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
def test_padding_masks_caches_and_weights_go_to_the_plain_forward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = pair(name)
    plain.eval(), fast.eval()
    tokens, mask = ids(12), torch.ones(2, 12, dtype=torch.long)
    mask[0, :5] = 0
    masked = fast(input_ids=tokens, attention_mask=mask).logits[mask.bool()]
    torch.testing.assert_close(masked, plain(input_ids=tokens, attention_mask=mask).logits[mask.bool()])
    whole = plain(input_ids=tokens).logits
    begun = fast(input_ids=tokens[:, :7], use_cache=True)
    rest = fast(input_ids=tokens[:, 7:], past_key_values=begun.past_key_values, use_cache=True).logits
    torch.testing.assert_close(torch.cat([begun.logits, rest], 1), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_dropout_is_as_it_was(name: str) -> None:
    changes: dict[str, Any] = {"attention_dropout": 0.3} if name == "llama" else {"attn_pdrop": 0.3, "resid_pdrop": 0.2}
    plain, fast = pair(name, **changes)
    found = []
    for model in (plain, fast):
        model.train()
        torch.manual_seed(3)
        found.append(model(input_ids=ids(20), use_cache=False).logits)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_autocast_and_bf16() -> None:
    plain, fast = pair("llama-grouped")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            fast(input_ids=ids(40)).logits, plain(input_ids=ids(40)).logits, rtol=0.05, atol=0.05
        )
    truth = plain(input_ids=ids(40)).logits
    fast.bfloat16()
    assert (fast(input_ids=ids(40)).logits.float() - truth).abs().max() < 0.05 * truth.abs().max()


def test_nothing_but_the_forward_changes() -> None:
    plain, fast = pair("llama")
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(fast.parameters(), plain.parameters(), strict=True))
    state = torch.get_rng_state()
    accelerate(build("gpt2"))
    assert torch.equal(state, torch.get_rng_state())
    assert replaced(restore(fast)) == set()


def test_a_copy_computes_with_its_own_weights() -> None:
    _, fast = pair("llama")
    copied = copy.deepcopy(fast)
    assert replaced(copied) == replaced(fast)
    before = fast(input_ids=ids(9)).logits
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(fast(input_ids=ids(9)).logits, before)
    assert not copied(input_ids=ids(9)).logits.any()


def test_a_module_that_looks_alike_but_computes_something_else_keeps_its_forward() -> None:
    class OddRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: Tensor) -> Tensor:
            return super().forward(hidden_states) * 2

    model = nn.Sequential(OddRMSNorm(8), LlamaRMSNorm(8))
    accelerate(model)
    assert replaced(model) == {"LlamaRMSNorm"}


def test_long_inputs_use_torchs_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = pair("llama")
    monkeypatch.setattr(kernels, "_MAX_SCORES", 100)
    monkeypatch.setattr(kernels, "causal_attention", lambda *given: pytest.fail("not for long inputs"))
    torch.testing.assert_close(fast(input_ids=ids(40)).logits, plain(input_ids=ids(40)).logits, rtol=1e-4, atol=1e-4)
