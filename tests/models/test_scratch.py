from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from foretrain.errors import RequestError
from foretrain.models.base import Model, family
from foretrain.models.bert import Bert
from foretrain.models.eurobert import EuroBert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.initialise import initialise
from foretrain.models.llama import Llama
from foretrain.models.presets import PRESETS
from foretrain.models.roles import parameter_roles
from foretrain.models.scratch import Scratch
from foretrain.models.size import count_parameters
from foretrain.parts import kinds
from foretrain.section import problems

KINDS: list[type[Scratch]] = [Llama, Gpt2, Bert, EuroBert]
SPECIAL = {"bos": 0, "eos": 0, "pad": 1, "mask": 2}


def small(kind: type[Scratch], **fields: Any) -> Scratch:
    return kind(**{"layers": 3, "width": 64, "heads": 2, "context": 32, **fields})


def faults(kind: type[Scratch], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind(**fields)
    return "\n".join(problems(caught.value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.layers <= 24])
def test_preset_has_the_parameters_its_name_says(kind: type[Scratch], name: str) -> None:
    preset, part = PRESETS[name], kind(preset=name)
    total = count_parameters(part.skeleton(part.config(preset.vocabulary, SPECIAL)))["total"]
    named = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert abs(total / named - 1) < 0.1


@pytest.mark.parametrize("name", PRESETS)
def test_llama_parameters_in_closed_form(name: str) -> None:
    preset, part = PRESETS[name], Llama(preset=name)
    config = part.config(preset.vocabulary, SPECIAL)
    width, inner = preset.width, config.intermediate_size
    embeddings = preset.vocabulary * width * (1 if preset.tied else 2)
    total = embeddings + preset.layers * (4 * width**2 + 3 * width * inner + 2 * width) + width
    named = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert preset.parameters == total
    assert abs(total / named - 1) < 0.1
    assert 8 / 3 * width <= inner < 8 / 3 * width + (64 if width < 1024 else 256)
    if preset.layers <= 10:
        counts = count_parameters(part.skeleton(config))
        assert counts == {"total": total, "without_embeddings": total - embeddings, "trained": total}


def test_fields_override_the_preset() -> None:
    config = Llama(preset="1M", layers=2, kv_heads=1, feedforward=100, rope_base=5e5).config(512, SPECIAL)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 96, 3)
    assert (config.num_key_value_heads, config.intermediate_size, config.max_position_embeddings) == (1, 100, 256)
    assert config.rope_parameters["rope_theta"] == 5e5
    assert (config.vocab_size, config.eos_token_id, config.pad_token_id) == (512, 0, 1)
    assert config.tie_word_embeddings and config._attn_implementation == "sdpa"
    assert Llama(preset="1M").context_length(config) == 256


def test_names_of_presets_in_either_case() -> None:
    assert Llama(preset="1m") == Llama(preset="1M")


def test_heads_follow_a_width_of_ones_own() -> None:
    assert Llama(width=128).size.heads == 4
    assert Llama(width=512).size.heads == 8
    assert Llama(width=256).size.heads == PRESETS["6M"].heads


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"preset": "30MB"}, "did you mean '30M'"),
        ({"preset": "tiny"}, "there are: 0.2M"),
        ({"width": 100, "heads": 3}, "width of 100 cannot be shared by 3 heads"),
        ({"heads": 4, "kv_heads": 3}, "4 heads cannot share 3 kv_heads"),
        ({"width": 30, "heads": 2}, "15 features a head are odd"),
        ({"layers": 0}, "layers"),
        ({"widht": 64}, "did you mean 'width'"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_words(fields: dict[str, Any], words: str) -> None:
    assert words in faults(Llama, **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_off_unless_asked_for(kind: type[Scratch]) -> None:
    def rates(part: Scratch) -> set[float]:
        config = part.config(64, SPECIAL).to_dict()
        return {
            value
            for name, value in config.items()
            if ("drop" in name) and isinstance(value, float) and "summary" not in name
        }

    assert rates(small(kind)) == {0.0}
    assert rates(small(kind, dropout=0.25)) == {0.25}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_build_runs_trains_and_reloads(kind: type[Scratch], tied: bool, tmp_path: Any) -> None:
    part = small(kind, tied=tied)
    config = part.config(80, SPECIAL)
    model = part.build(config, seed=0)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    ids = torch.arange(16).reshape(1, 16) + 3
    logits = model(input_ids=ids).logits
    assert logits.shape == (1, 16, 80)
    # Untrained, it knows nothing: the loss is near that of a uniform guess.
    assert abs(float(F.cross_entropy(logits[0].detach(), ids[0].flip(0))) - math.log(80)) < 1
    logits.sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    # transformers keeps a second bias of the logits in an untied BERT that nothing reads.
    assert idle <= {"cls.predictions.bias"}
    model.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if kind in (Bert, EuroBert) else AutoModelForCausalLM
    again = auto.from_pretrained(tmp_path).eval()
    assert torch.equal(again(input_ids=ids).logits, logits)


@pytest.mark.parametrize("kind", KINDS)
def test_skeleton_has_the_names_and_shapes_of_the_model(kind: type[Scratch]) -> None:
    part = small(kind)
    config = part.config(80, SPECIAL)
    skeleton = {name: p.shape for name, p in part.skeleton(config).named_parameters()}
    assert skeleton == {name: p.shape for name, p in part.build(config, 0).named_parameters()}


def test_bert_reads_both_ways_and_decoders_do_not() -> None:
    ids = torch.arange(16).reshape(1, 16) + 3
    other = ids.clone()
    other[0, -1] = 50
    for kind in KINDS:
        part = small(kind)
        model = part.build(part.config(80, SPECIAL), 0)
        moved = (model(input_ids=ids).logits - model(input_ids=other).logits)[0, 0].abs().max()
        assert (moved > 0) == (kind in (Bert, EuroBert))
        assert family(model.config) == ("encoder" if kind in (Bert, EuroBert) else "decoder")


@pytest.mark.parametrize("kind", KINDS)
def test_initial_scales(kind: type[Scratch]) -> None:
    part = small(kind, layers=8, width=128)
    model = part.build(part.config(500, SPECIAL), 3)
    base = math.sqrt(2 / (5 * 128))
    ends = ("o_proj.weight", "down_proj.weight", "c_proj.weight", "output.dense.weight")
    seen = 0
    roles = parameter_roles(model)
    for name, parameter in model.named_parameters():
        role = roles[name]
        if role.kind == "norm":
            assert bool((parameter == 1).all())
        elif role.kind == "bias":
            assert bool((parameter == 0).all())
        else:
            residual = role.block is not None and name.endswith(ends)
            seen += residual
            expected = base / math.sqrt(2 * 8) if residual else base
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.12)
    assert seen == 2 * 8


def test_initialisation_depends_on_seed_and_name_alone() -> None:
    part = small(Llama)
    torch.manual_seed(1)
    first = part.build(part.config(80, SPECIAL), 5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = part.build(part.config(80, SPECIAL), 5)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was used"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    # A deeper model with another vocabulary has the same first block, up to the depth-scaled matrices.
    deeper = dict(small(Llama, layers=5).build(small(Llama, layers=5).config(99, SPECIAL), 5).named_parameters())
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(deeper[name], dict(first.named_parameters())[name])
    other = part.build(part.config(80, SPECIAL), 6)
    assert not torch.equal(other.get_input_embeddings().weight, first.get_input_embeddings().weight)
    matrices = [p for n, p in first.named_parameters() if "q_proj" in n]
    assert not torch.equal(matrices[0], matrices[1])


def test_only_named_parameters_are_initialised() -> None:
    part = small(Gpt2)
    model = part.build(part.config(80, SPECIAL), 0)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    initialise(model, 1, {"transformer.wpe.weight"})
    changed = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert changed == ["transformer.wpe.weight"]


def test_the_embedding_is_not_padded() -> None:
    part = small(Llama)
    assert part.build(part.config(83, SPECIAL), 0).get_input_embeddings().weight.shape[0] == 83


def test_default_tokenizer_is_trained_on_the_corpus() -> None:
    assert Llama().default_tokenizer().kind == "bpe"


def test_family_of_what_is_neither() -> None:
    from transformers import T5Config, ViTConfig, Wav2Vec2Config

    with pytest.raises(RequestError, match="encoder-decoder"):
        family(T5Config())
    with pytest.raises(RequestError, match="neither"):
        family(Wav2Vec2Config())
    assert family(ViTConfig()) == "vision"


def test_all_kinds_are_found() -> None:
    assert {"llama", "gpt2", "bert", "pretrained"} <= set(kinds(Model))
