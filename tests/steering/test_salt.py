"""SALT: what it teaches when, what that costs, and plain training afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from foretrain.steering.salt import Salt
from foretrain.trainer import Trainer
from tests.steering.teachers import logits_of, prepared, save_teacher, taught
from tests.tiny import tiny_trainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_teacher(tmp_path_factory.mktemp("teacher"), steps=12)


def salted(teacher: str, steps: int = 8, **settings: Any) -> Trainer:
    return taught([{"kind": "salt", "model": "teacher", "candidates": 5, **settings}], teacher, steps)


def part_of(one: Trainer) -> Salt:
    part = one.steering[0]
    assert isinstance(part, Salt)
    return part


@pytest.mark.parametrize(("until", "end"), [(0.25, 2), (0.01, 1), (3, 3), (1.0, 8)])
def test_the_teacher_is_asked_up_to_until(teacher: str, until: float, end: int) -> None:
    one = salted(teacher, until=until)
    lines = [one.counted_step()[0] for _ in range(8)]
    assert [step for step, line in enumerate(lines) if "salt/teacher_loss" in line] == list(range(end))
    assert [one.kind(step) for step in range(8)] == ["taught"] * end + [""] * (8 - end)


def test_stage_two_is_next_token_prediction(teacher: str) -> None:
    """Its loss is that of the labels, and its cost that of a plain step."""
    one, plain = salted(teacher, until=2), tiny_trainer(8)
    for _ in range(2):
        one.counted_step()
    batch = prepared(one)
    p = logits_of(one.learner.model, batch).log_softmax(-1)
    hard = -p.gather(-1, batch["labels"][..., None]).mean()
    assert one.counted_step()[0]["loss"] == pytest.approx(float(hard), abs=1e-5)
    plain.counted_step()
    assert one.meter.per_kind[""] == plain.meter.per_kind[""] < one.meter.per_kind["taught"]


def test_stage_one_is_what_distillation_does(teacher: str) -> None:
    one = salted(teacher, until=3, weight=0.6)
    other = taught([{"kind": "distillation", "model": "teacher", "candidates": 5, "weight": 0.6}], teacher)
    for _ in range(3):
        assert one.train_step()["loss"] == other.train_step()["loss"]
    assert one.train_step()["loss"] != other.train_step()["loss"]


def test_the_weight_fades(teacher: str) -> None:
    hard, half, whole = (part_of(salted(teacher, until=4, weight=0.8, fade=fade)) for fade in (0, 0.5, 1))
    assert [hard.share(step) for step in range(4)] == [0.8] * 4
    assert [half.share(step) for step in range(4)] == pytest.approx([0.8, 0.8, 0.8, 0.4])
    assert [whole.share(step) for step in range(4)] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    one = salted(teacher, until=4, weight=0.8, fade=1)
    for _ in range(3):
        one.train_step()
    batch = prepared(one)
    with torch.no_grad():
        made = part_of(one).targets(one.objective.forward(one.learner.model, batch), batch)
    assert made is not None
    assert float(made.probabilities[..., 0].min()) >= 0.8 - 1e-6  # of the rest, 0.2 is the teacher's to share out


def test_where_stage_one_ends_is_kept(teacher: str) -> None:
    """A run whose end moved (a budget in minutes) keeps the plan that it began with."""
    state = part_of(salted(teacher, until=0.5)).state_dict()
    other = part_of(salted(teacher, 16, until=0.5))
    assert other.taught(7)
    other.load_state_dict(state)
    assert other.taught(3) and not other.taught(4)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"until": 0}, {"until": 1.5}, {"fade": 1.1}, {"fade": -0.1}):
        with pytest.raises(ValidationError):
            Salt(model="teacher", **settings)  # type: ignore[arg-type]
