"""Distillation: its targets against the teacher's own distribution, ensembles, and who may teach whom."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM

from foretrain.errors import RequestError
from foretrain.steering.distillation import Distillation
from foretrain.trainer import Trainer
from tests.steering.teachers import logits_of, prepared, save_teacher, taught, whole
from tests.tiny import CONTEXT, tiny_trainer

K = 5


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"), steps=12)


def distilled(teacher: Any, steps: int = 8, **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("batch", "precision") if key in settings}
    part = {"kind": "distillation", "model": "teacher", "candidates": K, **settings}
    return taught([part], teacher, steps, **top)


def targets_of(one: Trainer) -> tuple[Any, Tensor, Any]:
    """A batch, the logits of the teacher's folder on it, and the targets that the part makes."""
    batch = prepared(one)
    part = one.steering[0]
    assert isinstance(part, Distillation)
    model = AutoModelForCausalLM.from_pretrained(one.plan.recipe.models["teacher"].paths[0])
    with torch.no_grad():
        made = part.targets(one.objective.forward(one.learner.model, batch), batch)
    assert made is not None
    return batch, logits_of(model, batch), made


def test_the_formula_token_by_token(teacher: str) -> None:
    weight, temperature = 0.7, 2.0
    batch, logits, made = targets_of(distilled(teacher, weight=weight, temperature=temperature))
    for row in (0, 5):
        for place in range(0, CONTEXT, 3):
            scores = logits[row, place].double().tolist()
            label = int(batch["labels"][row, place])
            others = sorted((v for v in range(len(scores)) if v != label), key=lambda v: -scores[v])
            chosen = [label, *others[: K - 1]]
            total = sum(math.exp(scores[v] / temperature) for v in chosen)
            expected = {
                v: weight * math.exp(scores[v] / temperature) / total + (1 - weight if v == label else 0)
                for v in chosen
            }
            found = dict(zip(made.ids[row, place].tolist(), made.probabilities[row, place].tolist(), strict=True))
            assert found == pytest.approx(expected, abs=1e-6)
    assert made.probabilities.dtype == torch.float32 and not made.probabilities.requires_grad


@pytest.mark.parametrize("candidates", [None, 384])
def test_with_the_whole_vocabulary_it_is_the_teacher(teacher: str, candidates: int | None) -> None:
    one = distilled(teacher, weight=1.0, temperature=1.5, candidates=candidates)
    _, logits, made = targets_of(one)
    found = whole(made.ids, made.probabilities, logits.shape[-1])
    torch.testing.assert_close(found, (logits / 1.5).softmax(-1), atol=1e-6, rtol=1e-4)


def test_the_step_trains_on_them(teacher: str) -> None:
    one = distilled(teacher, weight=0.5, candidates=None)
    batch, logits, _ = targets_of(one)
    p = logits_of(one.learner.model, batch).log_softmax(-1)
    hard = -p.gather(-1, batch["labels"][..., None]).mean()
    soft = -(logits.softmax(-1) * p).sum(-1).mean()
    line = one.train_step()
    assert line["loss"] == pytest.approx(float(hard + soft) / 2, abs=1e-5)
    known = -logits.log_softmax(-1).gather(-1, batch["labels"][..., None]).mean()
    assert line["distillation/teacher_loss"] == pytest.approx(float(known), abs=1e-5)


def test_an_ensemble_teaches_the_mean_of_its_logits(teacher: str, tmp_path: Path) -> None:
    other = save_teacher(tmp_path / "other", seed=8)
    one = distilled([teacher, other], weight=1.0, candidates=None)
    batch = prepared(one)
    part = one.steering[0]
    assert isinstance(part, Distillation)
    made = part.targets(one.objective.forward(one.learner.model, batch), batch)
    assert made is not None
    models = [AutoModelForCausalLM.from_pretrained(path) for path in (teacher, other)]
    mean = sum(logits_of(model, batch) for model in models) / 2
    assert isinstance(mean, Tensor)
    found = whole(made.ids, made.probabilities, mean.shape[-1])
    torch.testing.assert_close(found, mean.softmax(-1), atol=1e-6, rtol=1e-4)


def test_a_learner_comes_closer_to_its_teacher(teacher: str) -> None:
    def distance(one: Trainer) -> float:
        for _ in range(20):
            one.train_step()
        batch = prepared(one)
        model = AutoModelForCausalLM.from_pretrained(teacher)
        theirs, mine = logits_of(model, batch).log_softmax(-1), logits_of(one.learner.model, batch).log_softmax(-1)
        return float((theirs.exp() * (theirs - mine)).sum(-1).mean())

    assert distance(distilled(teacher, 20, weight=1.0, candidates=None)) < distance(tiny_trainer(20))


def test_micro_batches_change_nothing(teacher: str) -> None:
    whole, pieces = distilled(teacher), distilled(teacher, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(3):
        a, b = whole.train_step(), pieces.train_step()
        for name in ("loss", "distillation/teacher_loss"):
            assert a[name] == pytest.approx(b[name], abs=1e-6)


def test_no_weight_is_plain_training(teacher: str) -> None:
    plain, same = tiny_trainer(8), distilled(teacher, weight=0.0)
    for _ in range(4):
        assert plain.train_step()["loss"] == pytest.approx(same.train_step()["loss"], rel=1e-6)


def test_the_teachers_pass_is_paid_for(teacher: str) -> None:
    plain, one = tiny_trainer(8), distilled(teacher)
    plain.counted_step(), one.counted_step()
    extra = one.meter.total / plain.meter.total - 1
    assert 0.3 < extra < 0.36  # a forward pass of a model as large as the learner is a third of its step


def test_computing_in_bf16(teacher: str) -> None:
    one = distilled(teacher, precision="bf16")
    assert all(math.isfinite(one.train_step()["loss"]) for _ in range(2))


def test_who_may_not_teach(teacher: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean 'teacher'"):
        distilled(teacher, model="teacer")
    with pytest.raises(RequestError, match="385 candidates a token are more than the 384"):
        distilled(teacher, candidates=385)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    model.resize_token_embeddings(390)
    model.save_pretrained(tmp_path / "padded")
    tiny_trainer().context.tokenizer.save(tmp_path / "padded")
    with pytest.raises(RequestError, match="'teacher' tells 390 tokens apart and this run's 384"):
        distilled(str(tmp_path / "padded"))


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"weight": 1.1}, {"weight": -0.1}, {"temperature": 0}, {"candidates": 1}, {}):
        with pytest.raises(ValidationError):
            Distillation(**({"model": "teacher", **settings} if settings else {}))  # type: ignore[arg-type]
