"""FST: the teacher against an explicit loop of its algorithm, what is undone, and the plain mean teacher."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.gradients import clip_gradient
from foretrain.steering.future_self_training import FutureSelfTraining
from foretrain.trainer import Trainer
from tests.steering.teachers import logits_of, prepared, whole
from tests.tiny import CONTEXT, tiny_trainer

K, WEIGHT, DECAY = 6, 0.4, 0.7
State = dict[str, Tensor]


def trainer(steps: int = 8, **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("batch", "optimizer", "precision", "model") if key in settings}
    part = {"kind": "future_self_training", "candidates": K, "weight": WEIGHT, "decay": DECAY, **settings}
    return tiny_trainer(steps, steering=[part], **top)


def part_of(one: Trainer) -> FutureSelfTraining:
    part = one.steering[0]
    assert isinstance(part, FutureSelfTraining)
    return part


def weights_of(one: Trainer) -> State:
    return {name: weight.detach().clone() for name, weight in one.learner.masters.items()}


def teacher_of(one: Trainer) -> State:
    return {name: tensor.clone() for name, tensor in part_of(one).state_dict()["teacher"].items()}


def mean(teacher: State, student: State, step: int) -> State:
    kept = min(1 - 1 / (step + 1), DECAY)
    return {name: kept * teacher[name] + (1 - kept) * student[name] for name in student}


def virtual(one: Trainer, teacher: State, rows: slice | Tensor) -> None:
    """A step of a trainer's model on some rows with a teacher's targets, written out: nothing of the part is used."""
    batch = prepared(one).take(rows)
    model, other = one.learner.model, copy.deepcopy(one.learner.model)
    other.load_state_dict(teacher, strict=False)
    scores = logits_of(other, batch).log_softmax(-1)
    label = torch.nn.functional.one_hot(batch["labels"], scores.shape[-1]).bool()
    likely = label | (scores >= scores.masked_fill(label, -math.inf).topk(K - 1).values[..., -1:])
    r = scores.masked_fill(~likely, -math.inf).softmax(-1)
    q = (1 - WEIGHT) * label + WEIGHT * r
    one.learner.zero_gradients()
    loss = -(q * model(input_ids=batch["inputs"]).logits.log_softmax(-1)).sum(-1).mean()
    loss.backward()
    clip_gradient({name: weight.grad for name, weight in one.learner.masters.items() if weight.grad is not None}, 1.0)
    one.set_rate(one.step)
    one.optimizer.step()


def close(a: State, b: State, tolerance: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance, msg=f"{name} differs")


def twin(one: Trainer) -> Trainer:
    """A trainer without the part, in the same state."""
    other = tiny_trainer(8, optimizer=one.plan.recipe.optimizer)
    state = one.state_dict()
    parts = {name: value for name, value in state["parts"].items() if not name.startswith("steering")}
    other.load_state_dict(copy.deepcopy({**state, "parts": parts}))
    return other


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_depth_step_by_step(ahead: int) -> None:
    one = trainer(ahead=ahead)
    for step in range(3):
        expected = teacher_of(one) or weights_of(one)
        student = twin(one)
        expected = mean(expected, weights_of(student), step)
        for _ in range(ahead):
            virtual(student, expected, slice(None))
            expected = mean(expected, weights_of(student), step)
        one.train_step()
        close(teacher_of(one), expected, 1e-5)


def test_wide_step_by_step() -> None:
    one = trainer(ahead=2, variant="wide")
    for step in range(3):
        begin = weights_of(one)
        expected = mean(teacher_of(one) or begin, begin, step)
        results = []
        for number in range(2):
            student = twin(one)
            virtual(student, expected, torch.arange(number, 8, 2))
            results.append(weights_of(student))
        soup = {name: (results[0][name] + results[1][name]) / 2 for name in begin}
        assert any(not torch.equal(results[0][name], results[1][name]) for name in begin)
        one.train_step()
        close(teacher_of(one), mean(expected, soup, step), 1e-5)


@pytest.mark.parametrize("variant", ["depth", "wide"])
def test_looking_ahead_is_undone(variant: str) -> None:
    """Weights, moments and gradients are what they were, bit for bit; in bf16 what is computed with as well."""
    one = trainer(ahead=2, variant=variant, precision="bf16")
    one.train_step()
    before = copy.deepcopy([one.learner.state_dict(), one.optimizer.state_dict(), one.learner.model.state_dict()])
    teacher = teacher_of(one)
    part_of(one).before_step(prepared(one))
    after = [one.learner.state_dict(), one.optimizer.state_dict(), one.learner.model.state_dict()]
    for old, new in ((before[0], after[0]), (before[2], after[2])):
        assert all(torch.equal(old[name], new[name]) for name in old)
    for number, moments in before[1]["state"].items():
        for name, value in moments.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(after[1]["state"][number][name]))
    assert all(weight.grad is None for weight in one.learner.masters.values()) or one.step == 1
    assert any(not torch.equal(teacher[name], teacher_of(one)[name]) for name in teacher)


def test_the_real_step_learns_from_the_teacher() -> None:
    one = trainer(ahead=1)
    one.train_step()
    student, batch = twin(one), prepared(one)
    line = one.train_step()
    other = copy.deepcopy(student.learner.model)
    other.load_state_dict(teacher_of(one), strict=False)
    with torch.no_grad():
        found = part_of(one).known(batch)
    assert found is not None
    made = part_of(one).mixed(found, 1)
    scores = logits_of(other, batch)
    assert torch.equal(found[0], part_of(one).known(batch)[0])  # type: ignore[index]
    torch.testing.assert_close(found[1], scores.log_softmax(-1).gather(-1, found[0]), atol=1e-5, rtol=1e-5)
    q = whole(made.ids, made.probabilities, scores.shape[-1])
    expected = -(q * logits_of(student.learner.model, batch).log_softmax(-1)).sum(-1).mean()
    assert line["loss"] == pytest.approx(float(expected), abs=1e-5)


def test_a_decay_of_nothing_is_self_distillation() -> None:
    """A teacher that keeps nothing of itself is the learner."""
    one = trainer(ahead=0, decay=0.0)
    other = tiny_trainer(8, steering=[{"kind": "self_distillation", "candidates": K, "alpha": WEIGHT}])
    for _ in range(4):
        assert one.train_step()["loss"] == pytest.approx(other.train_step()["loss"], abs=1e-6)


@pytest.mark.parametrize(("variant", "ahead", "steps"), [("depth", 0, 0), ("depth", 2, 2), ("wide", 4, 1)])
def test_what_it_costs(variant: str, ahead: int, steps: int) -> None:
    """A step is three forward passes; each real or virtual one has one of the teacher beside it."""
    one, plain = trainer(ahead=ahead, variant=variant), tiny_trainer(8)
    one.counted_step(), plain.counted_step()
    assert one.meter.total / plain.meter.total == pytest.approx((1 + steps) * 4 / 3, rel=0.02)


def test_micro_batches_change_nothing() -> None:
    whole, pieces = trainer(ahead=2), trainer(ahead=2, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(3):
        assert whole.train_step()["loss"] == pytest.approx(pieces.train_step()["loss"], abs=1e-5)


def test_the_teacher_begins_with_the_weights_of_the_run() -> None:
    """Those that it is given after it was set up included (a run that starts from another)."""
    one, other = trainer(ahead=0), tiny_trainer(seed=5)
    one.load_weights(other.state_dict())
    one.train_step()
    close(teacher_of(one), weights_of(other), 0)


def test_more_virtual_students_than_rows_are_refused() -> None:
    with pytest.raises(RequestError, match="9 virtual students need a row of the batch each, and a process has 8"):
        trainer(ahead=9, variant="wide")
    trainer(ahead=9)
