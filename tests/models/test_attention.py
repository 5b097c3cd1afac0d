"""Which tokens see which: the masks against explicit loops, and models that read as they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, RobertaConfig, RobertaForMaskedLM

from foretrain.errors import RequestError
from foretrain.exporting import save_model
from foretrain.kernels.accelerate import accelerate
from foretrain.models.attention import Mode, attention_mask, follows, own_mode, positions_within, reading, refuse_deaf
from foretrain.models.base import families
from foretrain.models.pretrained import Pretrained
from tests.tiny import CONTEXT, tiny_plan, tiny_trainer

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, -1]])
SIZE: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "context": CONTEXT}
MODES: tuple[Mode, ...] = ("causal", "bidirectional", "prefix")


def model(kind: str, **changes: Any) -> Any:
    objective = "causal_lm" if kind in ("llama", "gpt2") else "masked_lm"
    return tiny_plan(model={**SIZE, "kind": kind, **changes}, objective=objective).build_model()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("apart", [False, True])
def test_masks_say_of_every_pair_whether_it_is_seen(mode: Mode, apart: bool) -> None:
    prefix = torch.tensor([3, 0])
    mask = attention_mask(mode, 5, DOCUMENTS if apart else None, prefix).expand(2, 1, 5, 5)
    for row in range(2):
        for i in range(5):
            for j in range(5):
                seen = mode == "bidirectional" or j <= i or (mode == "prefix" and j < int(prefix[row]))
                seen = seen and not (apart and int(DOCUMENTS[row, i]) != int(DOCUMENTS[row, j]))
                assert bool(mask[row, 0, i, j]) == seen


def test_a_prefix_of_nothing_is_causal_and_of_everything_bidirectional() -> None:
    none, all_ = (attention_mask("prefix", 5, prefix=torch.tensor([length])) for length in (0, 5))
    assert torch.equal(none, attention_mask("causal", 5)) and torch.equal(all_, attention_mask("bidirectional", 5))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "eurobert"])
@pytest.mark.parametrize("fast", [False, True])
def test_models_read_as_they_are_told(kind: str, fast: bool) -> None:
    network = accelerate(model(kind)) if fast else model(kind)
    assert own_mode(network) == ("causal" if kind in ("llama", "gpt2") else "bidirectional")
    for mode in MODES:
        assert follows(network, mode)
    assert reading(network, own_mode(network), {"inputs": torch.zeros(1, 4, dtype=torch.int64)}) == {}


def test_a_model_that_does_not_is_refused() -> None:
    network = model("eurobert")
    plain = network.forward

    def deaf(*, attention_mask: Tensor | None = None, **inputs: Any) -> Any:
        return plain(**inputs)

    network.forward = deaf
    refuse_deaf(network, "bidirectional", "objective 'masked_lm'")
    with pytest.raises(RequestError, match=r"objective 'causal_lm' needs attention that is causal.*eurobert"):
        refuse_deaf(network, "causal", "objective 'causal_lm'")


def test_documents_do_not_see_each_other_and_count_from_their_own_start() -> None:
    network = model("eurobert").eval()
    ids = torch.arange(130, 140)[None]
    documents = torch.tensor([[0] * 4 + [1] * 6])
    assert positions_within(documents).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]]
    together = network(input_ids=ids, **reading(network, "bidirectional", {"inputs": ids, "documents": documents}))
    apart = torch.cat([network(input_ids=piece).logits for piece in (ids[:, :4], ids[:, 4:])], 1)
    torch.testing.assert_close(together.logits, apart, atol=1e-5, rtol=1e-4)


def test_positions_begin_behind_the_padding_where_a_model_counts_so() -> None:
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    network: Any = RobertaForMaskedLM(RobertaConfig(vocab_size=40, max_position_embeddings=20, **shape)).eval()
    ids = torch.arange(5, 11)[None]
    alone = {"inputs": ids, "documents": torch.zeros_like(ids)}
    torch.testing.assert_close(
        network(input_ids=ids, **reading(network, "bidirectional", alone)).logits, network(input_ids=ids).logits
    )


# One set of weights, two ways to read --------------------------------------------------------------------------------


def test_eurobert_told_to_read_causally_is_the_llama_of_its_weights() -> None:
    encoder, decoder = model("eurobert"), model("llama")
    assert {n: p.shape for n, p in encoder.named_parameters()} == {n: p.shape for n, p in decoder.named_parameters()}
    encoder.load_state_dict(decoder.state_dict())
    ids = torch.arange(128, 128 + CONTEXT)[None]
    said = encoder.eval()(input_ids=ids, **reading(encoder, "causal", {"inputs": ids})).logits
    torch.testing.assert_close(said, decoder.eval()(input_ids=ids).logits, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(said, encoder(input_ids=ids).logits, atol=1e-3)


@pytest.mark.parametrize("attention", ["prefix", "causal"])
def test_denoising_by_an_encoder_is_that_by_the_decoder_of_its_weights(attention: str) -> None:
    objective = {"kind": "span_corruption", "attention": attention}
    logits = []
    for kind in ("llama", "eurobert"):
        trainer = tiny_trainer(model={**SIZE, "kind": kind}, objective=objective)
        prepared = trainer.objective.prepare(trainer.stream.batch())
        logits.append(trainer.objective.forward(trainer.learner.model, prepared).logits())
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)


def test_which_objectives_can_train_a_model_is_told_by_its_config() -> None:
    kinds = ("llama", "gpt2", "bert", "eurobert")
    assert [families(model(kind).config) for kind in kinds] == [
        ("decoder",),
        ("decoder",),
        ("encoder",),
        ("encoder", "decoder"),
    ]
    with pytest.raises(RequestError, match=r"trains a decoder, but model 'bert' is an encoder.*'eurobert'"):
        tiny_plan(model={**SIZE, "kind": "bert"})
    with pytest.raises(RequestError, match=r"trains an encoder, but model 'llama' is a decoder.*'eurobert'"):
        tiny_plan(objective="masked_lm")


def test_plain_transformers_loads_it_reading_both_ways(tmp_path: Path) -> None:
    plan = tiny_plan(model={**SIZE, "kind": "eurobert"}, objective="masked_lm")
    network: Any = plan.build_model()
    folder = save_model(network, plan.processor, "", tmp_path / "model")
    loaded = AutoModelForMaskedLM.from_pretrained(folder)
    ids = torch.arange(128, 140)[None]
    assert type(loaded).__name__ == "EuroBertForMaskedLM" and loaded.config.mask_token_id == 2
    torch.testing.assert_close(loaded(input_ids=ids).logits, network(input_ids=ids).logits)
    assert own_mode(loaded) == "bidirectional" and follows(loaded, "causal")
    classifier = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    assert classifier.classifier_pooling == "mean"


def test_a_finished_decoder_goes_on_as_an_encoder(tmp_path: Path) -> None:
    plan = tiny_plan()
    decoder: Any = plan.build_model()
    folder = str(save_model(decoder, plan.processor, "", tmp_path / "decoder"))
    objective = {"kind": "masked_lm", "new_mask": True}
    trainer = tiny_trainer(
        4, model={"kind": "pretrained", "path": folder, "encoder": True}, tokenizer=None, objective=objective
    )
    before = decoder.get_input_embeddings().weight.detach()
    embedding = trainer.context.weights["model.embed_tokens.weight"]
    assert torch.equal(embedding, before)
    trainer.objective.before_step(0)
    torch.testing.assert_close(embedding[2], before[128:].mean(0))
    assert torch.equal(embedding[3:], before[3:]) and torch.equal(embedding[:2], before[:2])
    for _ in range(2):
        trainer.train_step()
    assert type(trainer.learner.model).__name__ == "EuroBertForMaskedLM"


def test_blocks_that_differ_are_not_taken_for_llamas(tmp_path: Path) -> None:
    plan = tiny_plan(model={**SIZE, "kind": "gpt2"})
    gpt2: Any = plan.build_model()
    folder = str(save_model(gpt2, plan.processor, "", tmp_path / "gpt2"))
    with pytest.raises(RequestError, match=r"model.encoder: .* type 'gpt2', and only decoders of Llama's blocks"):
        Pretrained(path=folder, encoder=True).config(384, {})
    llama: Any = tiny_plan().build_model()
    folder = str(save_model(llama, plan.processor, "", tmp_path / "llama"))
    part = Pretrained(path=folder, encoder=True)
    config = part.config(384, {})
    config.rope_parameters["rope_theta"] = 3.0
    with pytest.raises(RequestError, match="has blocks of its own"):
        part.build(config, 0)
