"""Outputs: losses and logits without the output layer, for plain heads and for models that change their logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, Gemma2Config, PreTrainedModel

from foretrain.objectives.outputs import has_plain_head, run_model
from tests.tasks.subjects import model

IDS = torch.arange(20).view(2, 10) % 50
LABELS = (IDS * 7 + 3) % 50
MASK = torch.arange(10).expand(2, -1) % 4 != 1


def capped() -> PreTrainedModel:
    config = Gemma2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=3.0,
        initializer_range=0.3,
    )
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return made


def encoder() -> PreTrainedModel:
    config = BertConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    made: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    return made


BUILDERS: dict[str, Any] = {
    "llama": lambda: model("llama", vocabulary=50),
    "gpt2": lambda: model("gpt2", vocabulary=50),
    "capped": capped,
    "bert": encoder,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_losses_and_gradients_are_those_of_the_models_own_logits(name: str) -> None:
    torch.manual_seed(0)
    made = BUILDERS[name]().eval()
    assert has_plain_head(made) == (name != "capped")
    outputs = run_model(made, input_ids=IDS)
    assert (outputs.hidden is None) == (name == "capped")
    logits = made(input_ids=IDS).logits
    torch.testing.assert_close(outputs.logits(), logits.detach(), rtol=1e-4, atol=1e-4)
    assert not outputs.logits().requires_grad
    losses = outputs.token_losses(LABELS, MASK)
    plain = functional.cross_entropy(logits.flatten(0, 1), LABELS.flatten(), reduction="none").view(2, 10) * MASK
    torch.testing.assert_close(losses, plain, rtol=1e-4, atol=1e-4)
    parameters = [parameter for parameter in made.parameters() if parameter.requires_grad]
    upstream = torch.linspace(0.5, 1.5, 20).view(2, 10)
    ours = torch.autograd.grad((losses * upstream).sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad((plain * upstream).sum(), parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        if b is None:
            assert a is None
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_candidates_are_the_label_and_the_likeliest_others_or_all(name: str) -> None:
    torch.manual_seed(0)
    made = BUILDERS[name]().eval()
    known = made(input_ids=IDS).logits.detach().float().log_softmax(-1)
    labels = LABELS.clone()
    labels[0, :2] = torch.tensor([0, 49])
    outputs = run_model(made, input_ids=IDS)
    for k in (1, 4, 50, None):
        ids, found = outputs.candidates(labels, k)
        assert ids.shape == found.shape == (2, 10, k or 50)
        assert torch.equal(ids[..., 0], labels)
        assert all(len(set(row)) == len(row) for row in ids.flatten(0, 1).tolist())
        torch.testing.assert_close(found, known.gather(-1, ids), rtol=1e-4, atol=1e-4)
        if k is not None:
            others = known.scatter(-1, labels[..., None], -torch.inf).sort(-1, descending=True)[0]
            torch.testing.assert_close(found[..., 1:], others[..., : k - 1], rtol=1e-4, atol=1e-4)


def test_the_head_is_itself_again_after_an_error() -> None:
    made = model("llama", vocabulary=50)
    has_plain_head(made)
    with pytest.raises(IndexError):
        run_model(made, input_ids=IDS + 50)
    assert made(input_ids=IDS).logits.shape[-1] == 50


def test_looking_at_the_head_leaves_the_mode_alone() -> None:
    made = model("gpt2", vocabulary=50).train()
    made.config.resid_pdrop = 0.9
    assert has_plain_head(made) and made.training


def test_a_head_that_is_no_linear_layer_gives_logits() -> None:
    made: Any = model("llama", vocabulary=50)
    made.set_output_embeddings(nn.Sequential(nn.Linear(32, 50)))
    assert not has_plain_head(made)
    assert run_model(made, input_ids=IDS).hidden is None


def test_under_autocast_the_head_follows_the_hidden_states() -> None:
    made = model("llama", vocabulary=50)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run_model(made, input_ids=IDS)
        losses = outputs.token_losses(LABELS, MASK)
    assert losses.dtype == torch.float32
    plain = run_model(made, input_ids=IDS).token_losses(LABELS, MASK)
    torch.testing.assert_close(losses, plain, rtol=0.05, atol=0.05)
