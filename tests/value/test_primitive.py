"""The value primitive against explicit gradients, forward mode and the effect of real steps."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain import vectors
from foretrain.batch import Batch
from foretrain.checks.trial import trial
from foretrain.models.roles import select
from foretrain.trainer import Trainer
from foretrain.value.passes import first_block
from foretrain.value.primitive import Sides, step_size, token_values
from foretrain.value.reference import directional, sample_gradients, token_gradients
from tests.tiny import FEEDBACK

MODEL = {"kind": "llama", "layers": 3, "width": 32, "heads": 2, "feedforward": 64, "context": 32}


@pytest.fixture(scope="module")
def trained() -> Trainer:
    """A tiny model after some steps: fresh ones have values near zero everywhere."""
    trainer = trial({"model": MODEL, "feedback": FEEDBACK, "overlap": "warn"})
    for _ in range(20):
        trainer.train_step()
    return trainer


def _batch(trainer: Trainer, rows: int = 2) -> Batch:
    return trainer.objective.prepare(trainer.stream.batch()).take(slice(0, rows))


def _direction(trainer: Trainer, subset: str) -> vectors.Vector:
    names = select(trainer.learner.roles, subset)
    return vectors.unit(trainer.context.feedback("sums").gradient(0, 8, names)[0])


@pytest.mark.parametrize(
    ("subset", "sides", "error"),
    [
        ("last:1", 2, 1e-3),
        ("last:2+re:norm", 2, 1e-3),
        ("all", 2, 1e-3),
        ("re:^model.norm", 2, 1e-3),
        ("last:1", 1, 5e-3),
        ("all", 1, 5e-3),
    ],
)
def test_values_equal_gradients_of_every_token(trained: Trainer, subset: str, sides: Sides, error: float) -> None:
    toward, batch = _direction(trained, subset), _batch(trained)
    found = token_values(trained.context, batch, toward, sides=sides).labels
    masters, objective = trained.learner.masters, trained.objective

    def losses() -> Tensor:
        return objective.losses(objective.forward(trained.learner.model, batch), batch)

    expected = token_gradients(losses, [masters[name] for name in toward], list(toward.values()))
    assert float((found - expected).norm() / expected.norm()) < error


def test_candidates_equal_forward_mode(trained: Trainer) -> None:
    toward, batch = _direction(trained, "last:1"), _batch(trained)
    values = token_values(trained.context, batch, toward, candidates=5)
    derivative = directional(_copy(trained), toward, batch["inputs"])
    expected = -derivative.gather(-1, values.ids)
    assert float((values.candidates - expected).norm() / expected.norm()) < 1e-3
    assert torch.equal(values.ids[..., 0], batch["labels"])
    assert torch.equal(values.candidates[..., 0], values.labels)


def _copy(trainer: Trainer) -> Any:
    return copy.deepcopy(trainer.learner.model).eval()


def test_values_of_a_sample_sum_to_the_product_with_its_gradient(trained: Trainer) -> None:
    toward, batch = _direction(trained, "last:2"), _batch(trained, 3)

    def loss(logits: Tensor, row: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits[:-1], row[1:], reduction="sum")

    # The references predict within the row that they read; the last prediction of the batch is not among them.
    gradients = sample_gradients(_copy(trained), loss, list(toward), batch["inputs"])
    expected = sum((gradients[name] * toward[name]).flatten(1).sum(1) for name in toward)
    found = token_values(trained.context, batch, toward).labels[:, :-1].sum(1)
    assert torch.allclose(found, torch.as_tensor(expected), rtol=2e-3, atol=1e-5)


def test_a_step_on_a_token_of_high_value_lowers_the_feedback_loss(trained: Trainer) -> None:
    names = select(trained.learner.roles, "last:2")
    feedback = trained.context.feedback("sums")
    gradient, before = feedback.gradient(0, 16, names)
    batch, objective = _batch(trained, 8), trained.objective
    values = token_values(trained.context, batch, gradient).labels  # not of unit length: nats per unit of rate

    def gain(mask: Tensor) -> tuple[float, float]:
        chosen = batch.with_(mask=mask)

        def loss(piece: Batch) -> Tensor:
            return objective.losses(objective.forward(trained.learner.model, piece), piece).sum()

        own, _ = trained.learner.gradient_of(loss, [chosen], names)
        rate = 1e-4 / vectors.norm(own)
        weights = {name: trained.learner.masters[name].detach() for name in names}
        with trained.learner.at(vectors.added(weights, own, -rate)):
            after = feedback.loss(0, 16)
        return (before - after) / rate, float((values * mask).sum())

    for wanted in (values > values.quantile(0.9), values < values.quantile(0.1)):
        realised, predicted = gain(wanted)
        assert realised == pytest.approx(predicted, rel=0.05)


def test_nothing_is_changed(trained: Trainer) -> None:
    before = {name: weight.detach().clone() for name, weight in trained.learner.masters.items()}
    training = trained.learner.model.training
    token_values(trained.context, _batch(trained), _direction(trained, "last:1"), candidates=3)
    assert all(torch.equal(before[name], weight) for name, weight in trained.learner.masters.items())
    assert trained.learner.model.training is training
    assert all(block.forward.__name__ != "skip" for block in trained.learner.model.model.layers)  # type: ignore[union-attr]


def test_only_the_blocks_that_moved_run_again(trained: Trainer) -> None:
    runs = {number: 0 for number in range(3)}
    handles = [
        block.mlp.register_forward_hook(lambda *_, number=number: runs.__setitem__(number, runs[number] + 1))  # type: ignore[union-attr, misc]
        for number, block in enumerate(trained.learner.model.model.layers)  # type: ignore[arg-type, union-attr]
    ]
    direction = _direction(trained, "last:1")
    runs.update(dict.fromkeys(runs, 0))
    token_values(trained.context, _batch(trained), direction)
    for handle in handles:
        handle.remove()
    assert runs == {0: 1, 1: 1, 2: 3}


@pytest.mark.parametrize(
    ("subset", "block"), [("last:1", 2), ("last:2", 1), ("all", 0), ("re:^model.norm", 3), ("head", 0), ("norms", 0)]
)
def test_first_block(trained: Trainer, subset: str, block: int) -> None:
    assert first_block(trained.context, select(trained.learner.roles, subset)) == block


def test_pieces_make_no_difference(trained: Trainer) -> None:
    batch, toward = _batch(trained, 4), _direction(trained, "last:2")
    whole = token_values(trained.context, batch, toward, candidates=3)
    pieces = token_values(replace(trained.context, micro=1), batch, toward, candidates=3)
    assert torch.equal(whole.ids, pieces.ids)
    assert torch.allclose(whole.candidates, pieces.candidates, rtol=1e-2, atol=1e-4)


def test_a_zero_direction_has_no_value(trained: Trainer) -> None:
    zero = vectors.scaled(_direction(trained, "last:1"), 0.0)
    assert float(token_values(trained.context, _batch(trained), zero, candidates=2).candidates.abs().max()) == 0.0


@pytest.mark.parametrize("sides", [1, 2])
def test_the_step_is_a_share_of_the_weights_it_moves(sides: Sides) -> None:
    one, weights, direction = {"a": torch.ones(1)}, {"a": torch.full((4,), 3.0)}, {"a": torch.full((4,), 0.01)}
    share = step_size(one, one, torch.float32, sides)
    assert step_size(weights, direction, torch.float32, sides) * 0.02 / 6.0 == pytest.approx(share, rel=1e-5)
    assert step_size(weights, direction, torch.bfloat16, sides) > step_size(weights, direction, torch.float32, sides)
