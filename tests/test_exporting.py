"""Exported folders: what plain `transformers` loads is the model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.exporting import load_run_model, model_from_state, save_model
from foretrain.run_directory import RunDirectory
from foretrain.tokens.tokenizer import TextTokenizer
from tests.tiny import tiny_recipe, tiny_trainer

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": 32},
    "gpt2": {"kind": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": 32, "tied": True},
}
TEXTS = ["A text.", "naïve — 東京\n\n x", "<|endoftext|>"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", MODELS)
def test_plain_transformers_give_the_logits_of_the_trained_masters(kind: str, precision: str, tmp_path: Path) -> None:
    trainer = tiny_trainer(4, model=MODELS[kind], precision=precision, optimizer={"lr": 0.01})
    for _ in range(3):
        trainer.counted_step()
    built = model_from_state(trainer.plan.recipe, trainer.plan.config, trainer.learner.state_dict())
    folder = save_model(built, trainer.plan.tokenizer, "# card\n", tmp_path / "model")
    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = trainer.stream.batch()["tokens"][:, :-1]
    with torch.no_grad(), trainer.learner.exact():
        expected = trainer.learner.model.eval()(input_ids=ids).logits
        start = trainer.plan.build_model()(input_ids=ids).logits
    found = loaded(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - start).abs().max() > 1e-2
    own = dict(loaded.named_parameters())
    assert all(torch.equal(own[name], master) for name, master in trainer.learner.masters.items())
    ours = trainer.plan.tokenizer.encode(TEXTS[:2])
    assert [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS[:2]] == ours
    assert tokenizer.eos_token_id == trainer.plan.tokenizer.eos == loaded.config.eos_token_id
    assert TextTokenizer.load(folder).hash == trainer.plan.tokenizer.hash


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    trainer = tiny_trainer()
    built = trainer.plan.build_model()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stale.bin").write_text("old")
    save_model(built, trainer.plan.tokenizer, "# card\n", folder)  # type: ignore[arg-type]
    assert not (folder / "stale.bin").exists()
    assert (folder / "README.md").read_text() == "# card\n"
    assert [child.name for child in tmp_path.iterdir()] == ["model"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {child.name for child in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    out = tmp_path_factory.mktemp("exporting") / "run"
    recipe = tiny_recipe(checkpoint={"every": 4, "keep": 5}, optimizer={"lr": 0.01}, precision="bf16")
    return ft.run(recipe, out=out, quiet=True)


def test_any_checkpoint_that_is_kept_can_be_exported(finished: RunDirectory, tmp_path: Path) -> None:
    last, _ = load_run_model(finished)
    same, _ = load_run_model(finished, 8)
    earlier, _ = load_run_model(finished, 4)
    for (name, a), b, c in zip(last.named_parameters(), same.parameters(), earlier.parameters(), strict=True):
        assert a.dtype == torch.float32 and torch.equal(a, b), name
        assert not torch.equal(a, c), name
    folder = ft.export(finished, out=tmp_path / "export", step=4)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    for a, b in zip(loaded.parameters(), earlier.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: transformers")
    assert ft.export(finished) == finished.path / "export"


def test_the_exported_model_has_the_validation_loss_of_the_result(finished: RunDirectory) -> None:
    """A loop that knows nothing of foretrain but the tokens."""
    trainer = tiny_trainer(precision="fp32")
    model = AutoModelForCausalLM.from_pretrained(finished.model_path)
    result = finished.result()
    assert result is not None
    for domain, found in trainer.plan.sets("validation").items():
        tokens = torch.from_numpy(found.read(0, min(found.tokens, 2048)))
        ring = torch.cat([torch.from_numpy(found.read(found.tokens - 1, 1)), tokens])
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(tokens), 32):
                window = ring[start : start + 33]
                logits = model(input_ids=window[None, :-1]).logits[0]
                total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
        assert result["validation"][f"{domain}/loss"] == pytest.approx(total / len(tokens), abs=1e-5)


def test_the_card_says_what_it_is(finished: RunDirectory) -> None:
    card, plan, result = (finished.model_path / "README.md").read_text(), finished.plan(), finished.result()
    assert result is not None
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"A llama model of {plan['parameters']:,} parameters" in card
    for domain in ("prose", "sums"):
        assert plan["hashes"]["corpus"][domain] in card
        assert f"{plan['domains'][domain]['train']['tokens']:,}" in card
        assert f"| validation {domain}/loss | {result['validation'][f'{domain}/loss']:.4f} | |" in card
    assert "| 8 | 2,048 |" in card
    assert "```yaml\nformat: 1\nname: tiny\n" in card


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"to": "gguf"}, "--to gguf: there is one format"),
        ({"step": 3}, "there is no checkpoint of step '3'"),
    ],
)
def test_what_cannot_be_exported_is_said(
    finished: RunDirectory, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=said):
        ft.export(finished, out=tmp_path / "x", **settings)


def test_a_folder_of_something_else_is_left_alone(finished: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(RequestError, match="holds other things"):
        ft.export(finished, out=tmp_path)
    assert (tmp_path / "thesis.tex").exists()
