"""Weights read and written tensor by tensor, against what transformers loads and saves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedModel

from foretrain.errors import RequestError
from foretrain.merging import weights as module
from foretrain.merging.saving import write_weights
from foretrain.merging.task_vectors import TaskVectors as PartOfVectors
from foretrain.merging.vectors import TaskVectors
from foretrain.merging.weights import open_weights, refuse_other_network
from foretrain.models.base import from_config
from tests.merging.folders import load, make, numbers, save
from tests.tasks.subjects import byte_tokenizer


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_in_shards_reads_as_one_file(tied: bool, tmp_path: Path) -> None:
    whole = open_weights("whole", save(make(tied=tied), tmp_path / "whole"))
    pieces = open_weights("pieces", save(make(tied=tied), tmp_path / "pieces", max_shard_size="20KB"))
    assert len(list(pieces.folder.glob("*.safetensors"))) > 2
    expected = {name: parameter for name, parameter in load(whole.folder).named_parameters()}
    assert whole.names == pieces.names == list(expected)  # a tied output layer is no tensor of its own
    assert ("lm_head.weight" in expected) is not tied
    for name, weight in expected.items():
        assert torch.equal(whole.read(name), weight) and torch.equal(pieces.read(name), weight)
        assert whole.shape(name) == list(weight.shape) and whole.dtype(name) == torch.float32
    assert whole.hash != pieces.hash and whole.parameters == sum(weight.numel() for weight in expected.values())
    assert whole.blocks == 4 and whole.block("model.layers.2.mlp.up_proj.weight") == 2
    assert whole.block("model.embed_tokens.weight") is whole.block("model.norm.weight") is None


def test_ten_blocks_are_told_by_number(tmp_path: Path) -> None:
    """A name such as `layers.1.` is found in `layers.11.` too, by whoever looks for text."""
    found = open_weights("deep", save(make(layers=12), tmp_path / "deep"))
    assert found.blocks == 12
    assert {found.block(name) for name in found.names if ".layers.11." in name} == {11}
    assert {found.block(name) for name in found.names if ".layers.1." in name} == {1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_what_transformers_loads(dtype: torch.dtype, tmp_path: Path) -> None:
    like = open_weights("like", save(make().to(dtype), tmp_path / "like", max_shard_size="20KB"))
    told = {"formula": "twice"}
    write_weights(tmp_path / "out", like, lambda name: 2 * like.read(name).double(), told, "card")
    found = load(tmp_path / "out")
    assert found.dtype == dtype and found.lm_head.weight is found.model.embed_tokens.weight
    for name, weight in numbers(like.folder).items():
        assert torch.equal(dict(found.named_parameters())[name], (2 * weight).to(dtype))
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(like.names)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b")["input_ids"] == byte_tokenizer().encode(["a b"])[0]
    assert json.loads((tmp_path / "out" / "merge.json").read_text()) == told
    assert not list((tmp_path / "out").glob("*index*"))


def test_one_tensor_is_asked_for_at_a_time(tmp_path: Path) -> None:
    """None is kept until the next: models may be larger than memory."""
    import weakref

    like, alive = open_weights("like", save(make(), tmp_path / "like")), []

    def tensor(name: str) -> torch.Tensor:
        assert not [reference for reference in alive if reference() is not None]
        found = like.read(name).double()
        alive.append(weakref.ref(found))
        return found

    write_weights(tmp_path / "out", like, tensor, {}, "")
    assert len(alive) == len(like.names)


def test_bodies_are_saved_without_their_name(tmp_path: Path) -> None:
    settings = GPT2Config(vocab_size=390, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    save(GPT2LMHeadModel(settings), tmp_path / "whole")
    bare = GPT2Model(settings)
    bare.load_state_dict(load(tmp_path / "whole").transformer.state_dict())  # type: ignore[union-attr, arg-type]
    save(bare, tmp_path / "bare")
    (tmp_path / "bare" / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    whole, body = (open_weights(name, tmp_path / name) for name in ("whole", "bare"))
    assert whole.names == body.names and all(torch.equal(whole.read(name), body.read(name)) for name in whole.names)


def test_whole_numbers_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that a network saves stay as they are; weights that are whole numbers (8 bits) do not add up."""

    def counting(config: Any) -> PreTrainedModel:
        model = from_config(config)
        model.register_buffer("counter", torch.zeros(3, dtype=torch.int64))
        return model

    monkeypatch.setattr(module, "from_config", counting)
    base, tuned = (save(make(seed), tmp_path / str(seed)) for seed in (0, 1))
    for folder, number in ((base, 7), (tuned, 9)):
        tensors = {**load_file(folder / module.FILE), "counter": torch.full((3,), number)}
        save_file(tensors, folder / module.FILE, metadata={"format": "pt"})
    vectors = TaskVectors(open_weights("base", base), [open_weights("tuned", tuned)])
    assert "counter" in vectors.base.names and "counter" not in vectors.names
    PartOfVectors(base=str(base), tuned=[str(tuned)]).write([], tmp_path / "out")
    assert load_file(tmp_path / "out" / module.FILE)["counter"].tolist() == [7, 7, 7]
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, tuned / module.FILE, metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"'model\.norm\.weight' in .* is stored as I8, which cannot be added up"):
        PartOfVectors(base=str(tuned), tuned=[str(base)]).write([], tmp_path / "again")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    good = save(make(), tmp_path / "good", max_shard_size="20KB")
    with pytest.raises(RequestError, match=r"merge\.base: there is no model in .*nowhere"):
        open_weights("base", tmp_path / "nowhere")
    lost = Path(shutil.copytree(good, tmp_path / "lost"))
    next(lost.glob("*.safetensors")).unlink()
    with pytest.raises(RequestError, match=r"lost lacks model-0000.* Download it again"):
        open_weights("base", lost)
    torn = Path(shutil.copytree(good, tmp_path / "torn"))
    shard = next(torn.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(RequestError, match=r"merge\.base: the weights in .*torn.* are damaged"):
        open_weights("base", torn)
    (torn / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(RequestError, match=r"index\.json is damaged"):
        open_weights("base", torn)
    few = save(make(), tmp_path / "few")
    tensors = load_file(few / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, few / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"lack 1 parameters of its network \(model.norm.weight\)"):
        open_weights("base", few)
    (few / "model.safetensors").unlink()
    with pytest.raises(RequestError, match="there are no safetensors in"):
        open_weights("base", few)
    first, other = open_weights("base", good), open_weights("tuned", save(make(width=32), tmp_path / "wide"))
    with pytest.raises(RequestError, match=r"merge\.tuned .* and merge\.base .* are not the same network"):
        refuse_other_network([first, other])
