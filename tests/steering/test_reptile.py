"""Interpolation of the weights against plain training that is interpolated by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain.trainer import Trainer
from tests.tiny import tiny_data, tiny_trainer

SETTINGS: dict[str, Any] = {"optimizer": {"lr": 1e-2}}


def _trainer(total: int = 8, every: float = 3, epsilon: float = 0.3, **changes: Any) -> Trainer:
    part = {"kind": "reptile", "every": every, "epsilon": epsilon}
    return tiny_trainer(total, steering=[part], **{**SETTINGS, **changes})


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}


def test_it_is_plain_training_interpolated_every_k_steps() -> None:
    plain, part = tiny_trainer(**SETTINGS), _trainer()
    anchor = _weights(plain)
    for step in range(1, 9):
        plain.train_step()
        part.train_step()
        if step in (3, 6):
            with torch.no_grad():
                for name, weight in plain.learner.masters.items():
                    weight.copy_(anchor[name] + 0.3 * (weight - anchor[name]))
            anchor = _weights(plain)
        for name, weight in _weights(part).items():
            torch.testing.assert_close(weight, plain.learner.masters[name].detach(), rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(weight, anchor[name]) for name, weight in _weights(part).items()), (
        "steps after the last multiple stay"
    )


def test_it_begins_at_the_weights_that_were_loaded() -> None:
    other = tiny_trainer(seed=5)
    part = _trainer(epsilon=1e-6, every=2)
    part.load_weights(other.state_dict())
    begin = _weights(part)
    for _ in range(2):
        part.train_step()
    for name, weight in _weights(part).items():
        torch.testing.assert_close(weight, begin[name], rtol=0, atol=1e-6)


def test_a_skipped_step_does_not_hold_it_up() -> None:
    trainer = _trainer(epsilon=1e-6)
    begin = _weights(trainer)
    for _ in range(2):
        trainer.train_step()
    part = trainer.steering[0]
    assert not torch.equal(_weights(trainer)["model.norm.weight"], begin["model.norm.weight"])
    part.after_step(3)  # the step before was skipped, and nobody was told of it
    for name, weight in _weights(trainer).items():
        torch.testing.assert_close(weight, begin[name], rtol=0, atol=1e-6)
    state = part.state_dict()
    part.after_step(4)
    assert part.state_dict()["turns"] == state["turns"] == 1


def test_side_branches_are_left_alone() -> None:
    stages = {"one": {"weights": {"prose": 1}, "branch": 2}, "two": {"weights": {"sums": 1}}}
    corpus = {name: {**domain, "weight": 1.0} for name, domain in tiny_data()["corpus"].items()}
    trainer = _trainer(every=3, epsilon=1e-6, stages=stages, corpus=corpus)  # steps 3 and 4 are the branch
    begin = _weights(trainer)
    for _ in range(3):
        trainer.train_step()
    assert not torch.allclose(_weights(trainer)["model.norm.weight"], begin["model.norm.weight"], atol=1e-4)
    for _ in range(3):
        trainer.train_step()
    for name, weight in _weights(trainer).items():
        torch.testing.assert_close(weight, begin[name], rtol=0, atol=1e-6)


def test_k_is_a_share_of_the_run_too() -> None:
    trainer = _trainer(every=0.25)  # every second step of eight
    for _ in range(8):
        trainer.train_step()
    assert trainer.steering[0].state_dict()["turns"] == 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_at_epsilon_1_it_is_the_plain_run_bit_for_bit(precision: str) -> None:
    plain, same = tiny_trainer(precision=precision, **SETTINGS), _trainer(epsilon=1.0, every=1, precision=precision)
    for _ in range(4):
        assert plain.train_step()["loss"] == same.train_step()["loss"]
    a, b = _weights(plain), _weights(same)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_computed_with_moves_too() -> None:
    trainer = _trainer(every=1, precision="bf16")
    trainer.train_step()
    for name, weight in trainer.learner.masters.items():
        assert torch.equal(trainer.learner.model.get_parameter(name), weight.detach().bfloat16())
