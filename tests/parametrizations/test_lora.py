from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import foretrain as ft
from foretrain.checkpoints.tree import decode, encode
from foretrain.errors import RequestError
from foretrain.exporting import model_from_state
from foretrain.parametrizations.lora import LoRA
from foretrain.run_directory import RunDirectory
from foretrain.trainer import Trainer
from tests.models.test_surgery import built
from tests.tiny import tiny_recipe, tiny_trainer

peft = pytest.importorskip("peft", reason="peft is not installed (extra [peft])")

IDS = torch.arange(8)[None]


def trainer_of(part: dict[str, Any] | None = None, **changes: Any) -> Trainer:
    settings = {"optimizer": {"lr": 0.02, "weight_decay": 0.1}, **changes}
    return tiny_trainer(8, parametrization={"kind": "lora", **(part or {})}, **settings)


def test_the_start_is_the_base_and_adapters_come_from_the_seed() -> None:
    plain = built()
    expected = plain(input_ids=IDS).logits
    state = torch.get_rng_state()
    models = [LoRA().apply(built(), seed) for seed in (0, 0, 1)]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(models[0](input_ids=IDS).logits, expected)
    first, second, other = ({n: p for n, p in m.named_parameters() if "lora_A" in n} for m in models)
    assert len(first) == 14 and all(torch.equal(second[name], p) for name, p in first.items())
    assert not any(torch.equal(other[name], p) for name, p in first.items())
    assert all(p.abs().max() <= p.shape[1] ** -0.5 for p in first.values())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_each_layer_is_the_formula(kind: str) -> None:
    size = {"kind": kind, "layers": 2, "width": 32, "heads": 2, "context": 32}
    trainer = trainer_of({"rank": 4, "alpha": 6.0, "targets": "last:1"}, model=size)
    for _ in range(3):
        trainer.counted_step()
    plain, masters = trainer.plan.build_model(), trainer.learner.masters
    paths = {role.path for role in trainer.learner.roles.values()}
    assert len(paths) == (7 if kind == "llama" else 4) and len(masters) == 2 * len(paths)
    with torch.no_grad():
        for path in paths:
            change = 6.0 / 4 * masters[f"{path}.lora_B.default.weight"] @ masters[f"{path}.lora_A.default.weight"]
            plain.get_submodule(path).weight += change.T if kind == "gpt2" else change  # type: ignore[operator]
        ids = trainer.stream.batch()["tokens"][:2, :32]
        ours = trainer.learner.model.eval()(input_ids=ids).logits
        torch.testing.assert_close(plain(input_ids=ids).logits, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
def test_only_adapters_are_trained(precision: str) -> None:
    trainer = trainer_of(precision=precision)
    start = dict(trainer.plan.build_model().named_parameters())
    losses = [trainer.counted_step()[0]["loss"] for _ in range(6)]
    assert losses[-1] < losses[0] - 0.1
    assert all(".lora_" in name and role.kind == "matrix" for name, role in trainer.learner.roles.items())
    held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in trainer.learner.masters.values()}
    assert [group["name"] for group in trainer.optimizer.param_groups] == ["decayed"]
    state = trainer.learner.state_dict()
    for name, parameter in start.items():
        kept = state[name] if name in state else state[name.removesuffix("weight") + "base_layer.weight"]
        assert torch.equal(kept, parameter), name


def test_a_resumed_run_with_dropout_is_the_same() -> None:
    whole, first, second = (trainer_of({"dropout": 0.2}) for _ in range(3))
    expected = [whole.counted_step()[0] for _ in range(6)]
    found = [first.counted_step()[0] for _ in range(3)]
    structure, tensors = encode(first.state_dict())
    second.load_state_dict(decode(structure, {name: tensor.clone() for name, tensor in tensors.items()}))
    assert found + [second.counted_step()[0] for _ in range(3)] == expected
    assert expected[1]["loss"] != [trainer.counted_step()[0] for trainer in [trainer_of()] for _ in range(2)][1]["loss"]


def test_muon_takes_adapters_for_matrices() -> None:
    trainer = trainer_of(optimizer={"kind": "muon", "lr": 0.02})
    assert [group["name"] for group in trainer.optimizer.param_groups] == ["muon"]
    losses = [trainer.counted_step()[0]["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that adapts a pretrained folder."""
    folder = tmp_path_factory.mktemp("lora")
    base = ft.run(tiny_recipe(budget={"steps": 4}), out=folder / "base", quiet=True)
    changes = {
        "model": {"kind": "pretrained", "path": str(base.model_path), "context": 32},
        "tokenizer": None,
        "parametrization": {"kind": "lora", "rank": 4, "targets": "re:(q|v)_proj"},
        "optimizer": {"lr": 0.02},
    }
    return ft.run(tiny_recipe(**changes), out=folder / "run", quiet=True)


def test_the_adapter_folder_is_one_that_peft_reads_and_merges_to_the_export(run: RunDirectory, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(run.load_recipe().model.path)  # type: ignore[attr-defined]
    before = base(input_ids=IDS).logits.detach().clone()
    exported = AutoModelForCausalLM.from_pretrained(run.model_path)
    assert {name for name, _ in exported.named_parameters()} == {name for name, _ in base.named_parameters()}
    theirs = peft.PeftModel.from_pretrained(base, run.model_path / "adapter").eval()
    adapted = theirs(input_ids=IDS).logits.detach()
    assert (adapted - before).abs().max() > 1e-3
    torch.testing.assert_close(exported(input_ids=IDS).logits, adapted, rtol=0, atol=1e-5)
    merged = theirs.merge_and_unload()
    for (name, ours), other in zip(exported.named_parameters(), merged.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-6, msg=name)
    automatic = peft.AutoPeftModelForCausalLM.from_pretrained(run.model_path / "adapter")  # finds the base by itself
    torch.testing.assert_close(automatic(input_ids=IDS).logits.detach(), adapted)


def test_exports_carry_the_adapter(run: RunDirectory, tmp_path: Path) -> None:
    final, earlier = ft.export(run, out=tmp_path / "final"), ft.export(run, out=tmp_path / "step", step=8)
    files = [(folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in (final, earlier)]
    assert files[0] == files[1] == (run.model_path / "adapter" / "adapter_model.safetensors").read_bytes()
    AutoModelForCausalLM.from_pretrained(final)


def test_targets_that_are_not_there_are_refused() -> None:
    with pytest.raises(RequestError, match=r"parametrization.targets: 're:q_porj' holds no .*mean 're:q_proj'"):
        LoRA(targets="re:q_porj").apply(built(), 0)
    with pytest.raises(RequestError, match="rank: 64 is more than the smaller side of model"):
        LoRA(rank=64).apply(built(), 0)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RequestError, match=r"needs peft: pip install 'foretrain\[peft\]'"):
        LoRA().apply(built(), 0)


def test_checkpoints_in_between_are_merged_too() -> None:
    trainer = trainer_of({"targets": "matrices"}, precision="bf16")
    for _ in range(3):
        trainer.counted_step()
    model = model_from_state(trainer.plan.recipe, trainer.plan.config, trainer.learner.state_dict())
    ids = trainer.stream.batch()["tokens"][:2, :32]
    with torch.no_grad(), trainer.learner.exact():
        ours = trainer.learner.model.eval()(input_ids=ids).logits
        torch.testing.assert_close(model.eval()(input_ids=ids).logits, ours, rtol=0, atol=1e-5)
    assert not hasattr(model, "peft_config") and all(p.requires_grad for p in model.parameters())
