"""Named models: other runs, folders and ensembles as parts read them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foretrain.api import run
from foretrain.errors import RequestError
from foretrain.named_models import NamedModel
from foretrain.overrides import with_override
from foretrain.recipe import make_recipe
from foretrain.trainer import Trainer
from tests.tiny import tiny_data, tiny_plan, tiny_trainer


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs of other seeds."""
    folder = tmp_path_factory.mktemp("teachers")
    for seed in (1, 2):
        run(make_recipe(tiny_data(seed=seed, budget={"steps": 2})), out=folder / str(seed), quiet=True)
    return [folder / "1", folder / "2"]


def _trainer(path: Any, **changes: Any) -> Trainer:
    return tiny_trainer(models={"teacher": path}, **changes)


def _logits(trainer: Trainer) -> torch.Tensor:
    batch = trainer.objective.prepare(trainer.stream.batch())
    return trainer.context.named("teacher").outputs(batch).logits()


def test_a_run_and_its_model_folder_are_the_same(teachers: list[Path]) -> None:
    of_run, of_folder = _logits(_trainer(str(teachers[0]))), _logits(_trainer(str(teachers[0] / "model")))
    assert torch.equal(of_run, of_folder) and not of_run.requires_grad


def test_it_says_what_transformers_says(teachers: list[Path]) -> None:
    from transformers import AutoModelForCausalLM

    trainer = _trainer(str(teachers[0]))
    batch = trainer.objective.prepare(trainer.stream.batch())
    model = AutoModelForCausalLM.from_pretrained(teachers[0] / "model").eval()
    with torch.no_grad():
        wanted = model(batch["inputs"]).logits
    assert torch.allclose(_logits(trainer), wanted, atol=1e-5)
    assert trainer.context.named("teacher").vocabulary == wanted.shape[-1]


def test_an_ensemble_is_the_mean_of_logits(teachers: list[Path]) -> None:
    both = _logits(_trainer([str(path) for path in teachers]))
    each = [_logits(_trainer(str(path))) for path in teachers]
    assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-6)
    assert not torch.allclose(each[0], each[1], atol=1e-3)


def test_it_is_loaded_once_and_never_trained(teachers: list[Path]) -> None:
    trainer = _trainer(str(teachers[0]))
    reference = trainer.context.named("teacher")
    before = [parameter.clone() for parameter in reference.models[0].parameters()]
    trainer.train_step()
    assert trainer.context.named("teacher") is reference
    assert all(
        torch.equal(mine, now) and not now.requires_grad
        for mine, now in zip(before, reference.models[0].parameters(), strict=True)
    )


def test_the_plan_holds_the_hash_of_its_weights(teachers: list[Path]) -> None:
    plans = [tiny_plan(models={"teacher": str(path)}) for path in (*teachers, teachers[0] / "model")]
    first, second, folder = (plan.hashes["models"]["teacher"] for plan in plans)
    assert first == folder != second
    assert "models" not in tiny_plan().hashes
    assert NamedModel(path="somebody/model").content() != NamedModel(path="somebody/other").content()


def test_a_misspelt_name_is_told(teachers: list[Path]) -> None:
    with pytest.raises(RequestError, match="did you mean 'teacher'"):
        _trainer(str(teachers[0])).context.named("teecher")
    with pytest.raises(RequestError, match="the recipe has none"):
        tiny_trainer().context.named("teacher")


def test_another_tokenizer_is_refused(teachers: list[Path]) -> None:
    trainer = _trainer(str(teachers[0]), tokenizer={"kind": "bpe", "vocabulary": 500})
    with pytest.raises(RequestError, match=r"models\.teacher: .* another tokenizer"):
        trainer.context.named("teacher")


def test_a_shorter_context_is_refused(teachers: list[Path]) -> None:
    model = {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": 64}
    trainer = _trainer(str(teachers[0]), model=model)
    with pytest.raises(RequestError, match="32 tokens at once, fewer than"):
        trainer.context.named("teacher")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"models\.teacher: .*no folder"):
        _trainer("./nowhere/at/all").context.named("teacher")
    with pytest.raises(RequestError, match="list of paths is empty"):
        _trainer([]).context.named("teacher")


def test_a_bare_path_is_overridden_by_its_key() -> None:
    changed = with_override({"models": {"teacher": "runs/small"}}, "models.teacher.path=runs/large")
    assert changed == {"models": {"teacher": {"path": "runs/large"}}}
