"""MUSCLE: which teacher a token has, that the gradient is that of the masked divergence, and who may teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from foretrain.errors import RequestError
from foretrain.steering.muscle import Muscle
from foretrain.step import Problem
from foretrain.trainer import Trainer
from tests.steering.teachers import logits_of, prepared, save_teacher, whole
from tests.tiny import CONTEXT, tiny_trainer


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_teacher(folder / name, steps=20, seed=seed) for name, seed in (("old", 7), ("new", 8))}


def compatible(models: dict[str, str], start: bool = True, **settings: Any) -> Trainer:
    """A trainer with both teachers, at the weights of the new one."""
    top = {key: settings.pop(key) for key in ("batch", "precision") if key in settings}
    part = {"kind": "muscle", "old": "old", "new": "new", **settings}
    one = tiny_trainer(8, steering=[part], models=models, **top)
    if start:
        learned = dict(AutoModelForCausalLM.from_pretrained(models["new"]).named_parameters())
        with torch.no_grad():
            for name, weight in one.learner.masters.items():
                weight.copy_(learned[name] * 1.1)
    return one


def both(models: dict[str, str], batch: Any) -> list[Tensor]:
    return [logits_of(AutoModelForCausalLM.from_pretrained(models[name]), batch) for name in ("old", "new")]


def test_the_mask_chooses_the_teacher_token_by_token(models: dict[str, str]) -> None:
    one = compatible(models)
    batch, part = prepared(one), one.steering[0]
    assert isinstance(part, Muscle)
    with torch.no_grad():
        made = part.targets(one.objective.forward(one.learner.model, batch), batch)
    assert made is not None
    old, new = (logits.softmax(-1) for logits in both(models, batch))
    picks = logits_of(one.learner.model.eval(), batch).argmax(-1)
    found, seen = whole(made.ids, made.probabilities, old.shape[-1]), set()
    for row in range(8):
        for place in range(CONTEXT):
            wrong = int(picks[row, place]) != int(batch["labels"][row, place])
            seen.add(wrong)
            torch.testing.assert_close(found[row, place], (old if wrong else new)[row, place], atol=1e-6, rtol=1e-4)
    assert seen == {True, False}


def test_the_gradient_is_that_of_the_masked_divergence(models: dict[str, str]) -> None:
    one = compatible(models)
    batch = prepared(one)
    found = Problem(batch, one.objective, one.learner, one.steering, batch.rows)()
    found = {name: tensor.clone() for name, tensor in found.items()}
    old, new = (logits.log_softmax(-1) for logits in both(models, batch))
    own = one.learner.model(input_ids=batch["inputs"]).logits.log_softmax(-1)
    m = (own.detach().argmax(-1) != batch["labels"]).float()
    kl = [(each.exp() * (each - own)).sum(-1) for each in (old, new)]
    loss = (m * kl[0] + (1 - m) * kl[1]).mean()
    expected = torch.autograd.grad(loss, list(one.learner.masters.values()))
    for (name, tensor), other in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(tensor, other, atol=1e-6, rtol=1e-3, msg=name)


def test_what_is_recorded(models: dict[str, str]) -> None:
    one = compatible(models)
    batch = prepared(one)
    picks = logits_of(one.learner.model.eval(), batch).argmax(-1)
    one.learner.model.train()
    wrong = picks != batch["labels"]
    old, new = (-each.log_softmax(-1).gather(-1, batch["labels"][..., None])[..., 0] for each in both(models, batch))
    line = one.train_step()
    assert line["muscle/wrong"] == pytest.approx(float(wrong.float().mean()), abs=1e-6)
    assert line["muscle/teacher_loss"] == pytest.approx(float(torch.where(wrong, old, new).mean()), abs=1e-5)
    # The step's loss is the cross-entropy to them.
    assert line["loss"] > 0


def test_half_a_weight_leaves_half_on_the_label(models: dict[str, str]) -> None:
    one = compatible(models, weight=0.5)
    batch, part = prepared(one), one.steering[0]
    assert isinstance(part, Muscle)
    full = compatible(models).steering[0]
    assert isinstance(full, Muscle)
    with torch.no_grad():
        outputs = one.objective.forward(one.learner.model, batch)
        mixed, pure = part.targets(outputs, batch), full.targets(outputs, batch)
    assert mixed is not None and pure is not None
    expected = pure.probabilities / 2
    expected[..., 0] += 0.5
    torch.testing.assert_close(mixed.probabilities, expected)


def test_micro_batches_change_nothing(models: dict[str, str]) -> None:
    one, pieces = compatible(models), compatible(models, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(2):
        a, b = one.train_step(), pieces.train_step()
        for name in ("loss", "muscle/wrong", "muscle/teacher_loss"):
            assert a[name] == pytest.approx(b[name], abs=1e-5)


def test_both_teachers_passes_are_paid_for(models: dict[str, str]) -> None:
    plain, one = tiny_trainer(8), compatible(models)
    plain.counted_step(), one.counted_step()
    assert 0.6 < one.meter.total / plain.meter.total - 1 < 0.72


def test_who_may_not_teach(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="did you mean 'old'"):
        compatible(models, start=False, old="olt")
    with pytest.raises(RequestError, match="old and new are the same model, 'new'"):
        compatible(models, start=False, old="new")
    model = AutoModelForCausalLM.from_pretrained(models["old"])
    model.resize_token_embeddings(390)
    model.save_pretrained(tmp_path / "padded")
    tiny_trainer().context.tokenizer.save(tmp_path / "padded")
    with pytest.raises(
        RequestError, match="steering 'muscle': the model 'old' tells 390 tokens apart and this run's 384"
    ):
        compatible({**models, "old": str(tmp_path / "padded")}, start=False)
