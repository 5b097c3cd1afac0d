from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel, RobertaConfig, RobertaForMaskedLM

from foretrain.errors import RequestError
from foretrain.models.bert import Bert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.pretrained import Pretrained
from foretrain.models.scratch import Scratch

SPECIAL = {"bos": 0, "eos": 0, "pad": 1, "mask": 2}
IDS = torch.arange(16).reshape(1, 16) + 3


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def save(folder: Path, kind: type[Scratch] = Llama, **fields: Any) -> Any:
    part = kind(**{"layers": 2, "width": 64, "heads": 2, "context": 32, **fields})
    model = part.build(part.config(80, SPECIAL), 0)
    model.save_pretrained(folder)
    return model


def load(folder: Path, vocabulary: int = 80, seed: int = 0, **fields: Any) -> Any:
    part = Pretrained(path=str(folder), **fields)
    return part.build(part.config(vocabulary, SPECIAL), seed)


@pytest.mark.parametrize("kind", [Llama, Gpt2, Bert])
@pytest.mark.parametrize("tied", [True, False])
def test_loads_what_was_saved(kind: type[Scratch], tied: bool, tmp_path: Path) -> None:
    model = save(tmp_path, kind, tied=tied)
    loaded = load(tmp_path)
    assert torch.equal(model(input_ids=IDS).logits, loaded(input_ids=IDS).logits)
    assert loaded.config._attn_implementation == "sdpa"
    assert not loaded.training


def test_the_padding_row_stays_as_it_was_trained(tmp_path: Path) -> None:
    """Where the output layer shares it, it is what the model says of the padding token."""
    model = save(tmp_path, tied=True)
    with torch.no_grad():
        model.get_input_embeddings().weight[SPECIAL["pad"]] -= 1
    model.save_pretrained(tmp_path)
    assert torch.equal(model(input_ids=IDS).logits, load(tmp_path)(input_ids=IDS).logits)


def test_half_precision_weights_become_fp32(tmp_path: Path) -> None:
    save(tmp_path).bfloat16().save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in load(tmp_path).parameters()} == {torch.float32}


def test_skeleton_allocates_nothing(tmp_path: Path) -> None:
    save(tmp_path)
    part = Pretrained(path=str(tmp_path))
    skeleton = part.skeleton(part.config(80, SPECIAL))
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}


def test_context_and_dropout(tmp_path: Path) -> None:
    save(tmp_path, Gpt2)
    part = Pretrained(path=str(tmp_path), context=16, dropout=0.25)
    config = part.config(80, SPECIAL)
    assert part.context_length(config) == 16
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.25, 0.25, 0.25)
    assert Pretrained(path=str(tmp_path)).context_length(config) == 32
    untouched = Pretrained(path=str(tmp_path)).config(80, SPECIAL)
    assert (untouched.resid_pdrop, untouched.embd_pdrop) == (0.0, 0.0)


def test_long_models_are_read_in_shorter_windows_unless_asked(tmp_path: Path) -> None:
    save(tmp_path, Llama, context=5000)
    assert Pretrained(path=str(tmp_path)).context_length(Pretrained(path=str(tmp_path)).config(80, SPECIAL)) == 1024


def test_positions_behind_the_padding_row_do_not_count(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=80,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=34,
    )
    RobertaForMaskedLM(config).save_pretrained(tmp_path)
    part = Pretrained(path=str(tmp_path))
    assert part.context_length(part.config(80, {})) == 32
    with pytest.raises(RequestError, match="33 tokens are more than the 32 positions"):
        Pretrained(path=str(tmp_path), context=33).config(80, {})


def test_tokenizer_that_does_not_fit(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(RequestError, match=r"tokenizer does not fit the model: it has 81 ids.* 80 rows"):
        load(tmp_path, vocabulary=81)
    assert load(tmp_path, vocabulary=60).config.vocab_size == 80


def test_special_ids_follow_the_tokenizer(tmp_path: Path) -> None:
    save(tmp_path)
    part = Pretrained(path=str(tmp_path))
    assert part.config(80, {"eos": 7, "bos": None, "pad": None}).eos_token_id == 7
    assert part.config(80, {"eos": None}).eos_token_id == 0


def test_context_longer_than_the_models(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(RequestError, match=r"33 tokens are more than the 32 positions"):
        load(tmp_path, context=33)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RequestError, match="has no weights at all"):
        load(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError, match=r"has only pytorch_model.bin.*safetensors only.*save_pretrained"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_weights_are_named(damage: str, tmp_path: Path) -> None:
    save(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "garbage": b"\xff" * 4096, "empty": b""}[damage])
    with pytest.raises(RequestError, match=r"model.safetensors are damaged"):
        load(tmp_path)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(RequestError, match=r"lack 9 parameters of its architecture \(model.layers.2"):
        load(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(RequestError, match="cannot be loaded"):
        load(tmp_path)


def test_a_body_without_its_output_layer_gets_a_fresh_one_from_the_seed(tmp_path: Path) -> None:
    config = Bert(layers=2, width=64, heads=2, context=32).config(80, SPECIAL)
    body = BertModel(config, add_pooling_layer=False)
    body.save_pretrained(tmp_path)
    first, again, other = load(tmp_path, seed=1), load(tmp_path, seed=1), load(tmp_path, seed=2)
    dense = "cls.predictions.transform.dense.weight"
    assert torch.equal(first.get_parameter(dense), again.get_parameter(dense))
    assert not torch.equal(first.get_parameter(dense), other.get_parameter(dense))
    assert torch.equal(
        first.bert.encoder.layer[0].attention.self.query.weight, body.encoder.layer[0].attention.self.query.weight
    )
    assert torch.equal(first.get_input_embeddings().weight, body.embeddings.word_embeddings.weight)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("./nowhere", "there is no folder './nowhere'"),
        ("a/b/c", "there is no folder"),
        ("no-such-owner/no-such-model", "HF_HUB_OFFLINE is set"),
    ],
)
def test_models_that_are_not_there(path: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        Pretrained(path=path).config(80, SPECIAL)


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"has no config.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{nonsense")
    with pytest.raises(RequestError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(RequestError, match="cannot be read"):
        load(tmp_path)


def test_default_tokenizer_is_the_models_own(tmp_path: Path) -> None:
    save(tmp_path)
    tokenizer = Pretrained(path=str(tmp_path)).default_tokenizer()
    assert (tokenizer.kind, tokenizer.path) == ("pretrained", str(tmp_path))  # type: ignore[attr-defined]


def test_a_trained_padding_row_is_kept(tmp_path: Path) -> None:
    model = save(tmp_path)
    with torch.no_grad():
        model.model.embed_tokens.weight[SPECIAL["pad"]] = 0.5
    model.save_pretrained(tmp_path)
    found = dict(load(tmp_path).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, found[name])
