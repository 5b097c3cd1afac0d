"""The feedback direction, preconditioned or not, and the values of true tokens along it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from foretrain import vectors
from foretrain.checks.trial import trial
from foretrain.gradients import mean_gradient
from foretrain.models.roles import select
from foretrain.trainer import Trainer
from foretrain.value.measuring import DAMPING, EPS, feedback_direction, preconditioned
from foretrain.value.primitive import label_values, token_values
from foretrain.value.reference import token_gradients
from tests.tiny import FEEDBACK


def _trainer(steps: int, **changes: object) -> Trainer:
    trainer = trial({"feedback": FEEDBACK, "overlap": "warn", **changes})
    for _ in range(steps):
        trainer.train_step()
    trainer.figures = {}
    return trainer


@pytest.fixture(scope="module")
def trained() -> Trainer:
    return _trainer(15)


def test_the_direction_is_the_feedback_gradient_at_length_one(trained: Trainer) -> None:
    names = select(trained.learner.roles, "last:1")
    gradient, loss = trained.context.feedback("sums").gradient(3, 8, names)
    found = feedback_direction(trained.context, "sums", 3, 8, names)
    assert (found.loss, found.norm) == (loss, vectors.norm(gradient))
    assert vectors.norm(found.vector) == pytest.approx(1, abs=1e-6)
    assert vectors.cosine(found.vector, gradient) == pytest.approx(1, abs=1e-6)
    assert trained.figures["feedback/sums/loss"] == loss
    assert trained.figures["feedback/sums/gradient_norm"] == found.norm


def test_preconditioning_is_this_formula() -> None:
    gradient = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[3.0]])}
    moments = {"a": torch.tensor([4.0, 0.0]), "b": torch.tensor([[0.25]]), "c": torch.ones(3)}
    found = preconditioned(gradient, moments)
    usual = ((4.0 + 0.0) / 2) ** 0.5
    expected = [1 / (2 + EPS + DAMPING * usual), -2 / (0 + EPS + DAMPING * usual)]
    assert found["a"].tolist() == pytest.approx(expected, rel=1e-6)
    assert found["b"].item() == pytest.approx(3 / (0.5 + EPS + DAMPING * 0.5), rel=1e-6)
    assert found.keys() == gradient.keys()


def test_preconditioned_value_foretells_a_preconditioned_step(trained: Trainer) -> None:
    context, names = trained.context, list(trained.learner.masters)
    feedback = context.feedback("sums")
    batch = trained.objective.prepare(trained.stream.batch())
    own = mean_gradient(context, batch)
    down, before = feedback.gradient(0, 20, names)
    moments = context.second_moments()
    step = preconditioned(own, moments)
    eta = 1e-4 * vectors.norm({name: trained.learner.masters[name].detach() for name in names}) / vectors.norm(step)
    with trained.learner.at(vectors.added(trained.learner.masters, step, -eta)):
        realised = before - feedback.loss(0, 20)
    assert eta * vectors.dot(preconditioned(down, moments), own) == pytest.approx(realised, rel=0.05)
    found = feedback_direction(context, "sums", 0, 20, names, precondition=True)
    assert vectors.cosine(found.vector, preconditioned(down, moments)) == pytest.approx(1, abs=1e-5)
    assert vectors.cosine(found.vector, down) < 0.99


def test_without_second_moments_it_is_the_plain_one() -> None:
    fresh = _trainer(0)
    names = select(fresh.learner.roles, "last:1")
    plain = feedback_direction(fresh.context, "sums", 0, 4, names).vector
    found = feedback_direction(fresh.context, "sums", 0, 4, names, precondition=True).vector
    assert all(torch.equal(plain[name], found[name]) for name in names)
    assert fresh.warnings == []

    other = _trainer(1, optimizer={"kind": "muon"})
    plain = feedback_direction(other.context, "sums", 1, 4, names).vector
    found = feedback_direction(other.context, "sums", 1, 4, names, precondition=True).vector
    assert all(torch.equal(plain[name], found[name]) for name in names)
    assert len(other.warnings) == 1 and "muon does not" in other.warnings[0]


def test_a_gradient_that_is_not_finite_is_no_direction() -> None:
    broken = _trainer(0)
    names = select(broken.learner.roles, "last:1")
    with torch.no_grad():
        broken.learner.masters[names[0]].fill_(float("nan"))
    for step in (0, 1):
        found = feedback_direction(broken.context, "sums", step, 4, names)
        assert all(not tensor.any() for tensor in found.vector.values())
    assert len(broken.warnings) == 1 and "'sums' was not finite" in broken.warnings[0]
    assert broken.figures == {}


@pytest.mark.parametrize("subset", ["last:1", "last:1+norms+head", "all"])
@pytest.mark.parametrize("micro", [2, 4])
def test_values_of_true_tokens_are_those_of_their_own_gradients(trained: Trainer, subset: str, micro: int) -> None:
    context = dataclasses.replace(trained.context, micro=micro)
    names = select(trained.learner.roles, subset)
    direction = feedback_direction(context, "sums", 0, 8, names).vector
    batch = trained.objective.prepare(trained.stream.batch()).take(slice(0, 4))
    before = {name: tensor.clone() for name, tensor in trained.learner.masters.items()}
    found = label_values(context, batch, direction)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.learner.masters.items())
    other = token_values(context, batch, direction).labels
    assert (found - other).norm() < 1e-3 * other.norm()
    explicit = token_gradients(
        lambda: trained.objective.losses(trained.objective.forward(trained.learner.model, batch), batch),
        [trained.learner.masters[name] for name in names],
        [direction[name] for name in names],
    )
    assert (found - explicit).norm() < 1e-3 * explicit.norm()


def test_no_direction_gives_no_value(trained: Trainer) -> None:
    batch = trained.objective.prepare(trained.stream.batch())
    names = select(trained.learner.roles, "last:1")
    nowhere = {name: torch.zeros_like(trained.learner.masters[name]) for name in names}
    assert not label_values(trained.context, batch, nowhere).any()
