"""The frozen problem of a step: gradients of groups of rows, and the loss that is counted once a row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from foretrain.step import Problem
from foretrain.trainer import Trainer
from tests.tiny import CONTEXT, tiny_trainer


def _problem(trainer: Trainer) -> Problem:
    return trainer._problem(trainer.objective.prepare(trainer.stream.batch()))


def _kept(gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in gradient.items()}


def test_gradients_of_groups_add_up_to_that_of_the_batch() -> None:
    trainer = tiny_trainer(batch={"tokens": 8 * CONTEXT, "micro": 3 * CONTEXT})
    whole = _kept(_problem(trainer)())
    problem = _problem(trainer)
    parts = [(3, _kept(problem(torch.tensor([6, 0, 3])))), (5, _kept(problem(torch.tensor([1, 2, 4, 5, 7]))))]
    for name, tensor in whole.items():
        summed = sum((rows / 8 * part[name] for rows, part in parts), torch.zeros(()))
        torch.testing.assert_close(tensor, summed, rtol=0, atol=1e-6)


def test_a_group_without_rows_has_no_gradient() -> None:
    trainer = tiny_trainer()
    problem = _problem(trainer)
    found = problem(torch.tensor([], dtype=torch.int64))
    assert found.keys() == trainer.learner.masters.keys(), "every rank has a gradient to sum"
    assert all(bool((tensor == 0).all()) for tensor in found.values())
    assert float(problem.loss) == 0.0


def test_every_row_counts_once_in_the_loss() -> None:
    trainer = tiny_trainer()
    plain, walked = _problem(trainer), _problem(trainer)
    plain()
    moved = {name: weight.detach() + 0.1 for name, weight in trainer.learner.masters.items()}
    walked(slice(0, 5))
    walked(slice(2, 5), moved)
    assert float(walked.loss) < float(plain.loss)
    walked(slice(3, 8))
    assert float(walked.loss) == pytest.approx(float(plain.loss), rel=1e-6)
    walked()
    walked(None, moved)
    assert float(walked.loss) == pytest.approx(float(plain.loss), rel=1e-6)
