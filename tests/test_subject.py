from __future__ import annotations

import pytest
import torch
from transformers import LlamaModel, MistralConfig, MistralForCausalLM

from foretrain.subject import Subject
from tests.tasks.subjects import byte_tokenizer, model, subject

ROWS = [[200, 300, 140, 150, 160], [210, 220], [130, 131, 132]]


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((3, 5), 7)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    for i, row in enumerate(ROWS):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_logits_and_features_equal_the_plain_model_row_by_row(kind: str) -> None:
    one = subject(kind)
    ids, mask = padded()
    logits, features = one.logits(ids, mask), one.features(ids, mask)
    for i, row in enumerate(ROWS):
        with torch.no_grad():
            plain = one.model.eval()(torch.tensor([row]), output_hidden_states=True)
        torch.testing.assert_close(logits[i, : len(row)], plain.logits[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(features[i, : len(row)], plain.hidden_states[-1][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_places_choose_among_all_logits(kind: str) -> None:
    one = subject(kind)
    ids, mask = padded()
    places = torch.zeros_like(mask)
    places[0, 3] = places[1, 1] = places[0, 0] = True
    torch.testing.assert_close(one.logits(ids, mask, places=places), one.logits(ids, mask)[places], atol=1e-5, rtol=0)


def test_only_the_logits_asked_for_are_made() -> None:
    one = subject()
    sizes = []
    one.model.get_output_embeddings().register_forward_hook(lambda m, args, out: sizes.append(out.numel()))
    ids, mask = padded()
    places = torch.zeros_like(mask)
    places[1, 1] = True
    one.logits(ids, mask, places=places)
    one.features(ids, mask)
    assert sizes == [390, 0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_cache_with_rows_of_unequal_length_equals_reading_anew(kind: str) -> None:
    one = subject(kind)
    ids, mask = padded()
    cache = one.cache()
    assert cache is not None
    one.logits(ids, mask, cache)
    after = torch.tensor([[170], [171], [172]])
    mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.bool)], 1)
    found = one.logits(after, mask, cache)
    for i, row in enumerate(ROWS):
        whole = one.logits(torch.tensor([[*row, int(after[i, 0])]]))
        torch.testing.assert_close(found[i, 0], whole[0, -1], atol=1e-5, rtol=0)


def test_no_cache_where_layers_look_through_a_window_of_columns() -> None:
    config = MistralConfig(
        vocab_size=390, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4,
    )  # fmt: skip
    assert Subject(MistralForCausalLM(config), byte_tokenizer(), 32).cache() is None
    assert subject("bert").cache() is None


def test_modes_gradients_and_precision_are_as_before() -> None:
    one = subject()
    one.model.train()
    one.model.model.layers[0].eval()
    modes = {name: module.training for name, module in one.model.named_modules()}
    ids, mask = padded()
    logits = one.logits(ids, mask)
    assert not logits.requires_grad and not one.features(ids, mask).requires_grad
    assert modes == {name: module.training for name, module in one.model.named_modules()}
    assert not one.model.get_output_embeddings()._forward_pre_hooks and not one.model.model._forward_hooks
    with pytest.raises(IndexError):
        one.logits(torch.tensor([[10**6]]))
    assert modes == {name: module.training for name, module in one.model.named_modules()}
    one.model.to(torch.bfloat16)
    assert one.logits(ids, mask).dtype == one.features(ids, mask).dtype == torch.float32


def test_dropout_is_off() -> None:
    one = subject("gpt2")
    one.model.train()
    ids, mask = padded()
    assert torch.equal(one.logits(ids, mask), one.logits(ids, mask))


def test_decoders_and_encoders_are_told_apart() -> None:
    assert subject("llama").causal and subject("gpt2").causal and not subject("bert").causal
    body = LlamaModel(model("llama").config)
    assert Subject(body, byte_tokenizer(), 8).features(torch.tensor([[1, 2]])).shape == (1, 2, 32)
