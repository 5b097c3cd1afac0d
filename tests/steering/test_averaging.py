"""Averages of a run's weights against closed forms over the weights of the plain run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.trainer import Trainer
from tests.tiny import tiny_data, tiny_trainer

SETTINGS: dict[str, Any] = {"optimizer": {"lr": 1e-2}}
TOTAL = 8


def _trainer(kind: str, total: int = TOTAL, **settings: Any) -> Trainer:
    return tiny_trainer(total, steering=[{"kind": kind, **settings}], **SETTINGS)


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}


@pytest.fixture(scope="module")
def plain() -> list[dict[str, Tensor]]:
    """The weights after each step of the plain run."""
    trainer, found = tiny_trainer(TOTAL, **SETTINGS), []
    for _ in range(TOTAL):
        trainer.train_step()
        found.append(_weights(trainer))
    return found


def _ends_as(trainer: Trainer, plain: list[dict[str, Tensor]], shares: dict[int, float]) -> None:
    """Plain up to the last step; then the mean of the weights after some steps (from 1), by their shares."""
    for step in range(1, TOTAL):
        trainer.train_step()
        assert all(torch.equal(plain[step - 1][name], weight) for name, weight in _weights(trainer).items())
    trainer.train_step()
    total = sum(shares.values())
    for name, weight in _weights(trainer).items():
        wanted = sum((share * plain[step - 1][name].double() for step, share in shares.items()), torch.zeros(()))
        torch.testing.assert_close(weight, (wanted / total).float(), rtol=1e-5, atol=1e-6)


def test_the_exponential_average_has_no_bias(plain: list[dict[str, Tensor]]) -> None:
    shares = {step: 0.7 ** (TOTAL - step) for step in range(1, TOTAL + 1)}
    _ends_as(_trainer("exponential_average", decay=0.7), plain, shares)


def test_snapshots_may_lie_apart(plain: list[dict[str, Tensor]]) -> None:
    _ends_as(_trainer("exponential_average", decay=0.5, every=3), plain, {8: 1, 5: 0.5, 2: 0.25})


def test_the_latest_average_is_the_mean_of_the_last_snapshots(plain: list[dict[str, Tensor]]) -> None:
    _ends_as(_trainer("latest_average", last=3, every=2), plain, {8: 1, 6: 1, 4: 1})
    _ends_as(_trainer("latest_average", last=2, every=0.5), plain, {8: 1, 4: 1})


@pytest.mark.parametrize(
    ("kind", "settings"), [("exponential_average", {"decay": 0.0}), ("latest_average", {"last": 1})]
)
def test_at_neutral_settings_every_bit_stays(
    kind: str, settings: dict[str, Any], plain: list[dict[str, Tensor]]
) -> None:
    trainer = _trainer(kind, **settings)
    for _ in range(TOTAL):
        trainer.train_step()
    assert all(torch.equal(plain[-1][name], weight) for name, weight in _weights(trainer).items())


def test_the_last_evaluation_is_that_of_the_average() -> None:
    trainer = _trainer("latest_average", last=4, every=1)
    for _ in range(TOTAL):
        trainer.train_step()
    found = trainer.measure()["validation/loss"]
    part: Any = trainer.steering[0]
    with trainer.learner.at({name: tensor + 0.01 for name, tensor in part.state_dict()["mean"].items()}):
        other = trainer.measure()["validation/loss"]
    with trainer.learner.at(part.state_dict()["mean"]):
        assert trainer.measure()["validation/loss"] == found != other


def test_what_is_computed_with_is_the_average_too() -> None:
    trainer = tiny_trainer(4, steering=[{"kind": "exponential_average"}], precision="bf16", **SETTINGS)
    for _ in range(4):
        trainer.train_step()
    for name, weight in trainer.learner.masters.items():
        assert torch.equal(trainer.learner.model.get_parameter(name), weight.detach().bfloat16())


def test_side_branches_are_left_out(plain: list[dict[str, Tensor]]) -> None:
    stages = {"one": {"weights": {"prose": 2, "sums": 1}, "branch": 2}, "two": {"weights": {"prose": 2, "sums": 1}}}
    corpus = {name: {**domain, "weight": 1.0} for name, domain in tiny_data()["corpus"].items()}
    part = {"kind": "latest_average", "last": 8, "every": 1}
    trainer, found = tiny_trainer(TOTAL, steering=[part], stages=stages, corpus=corpus, **SETTINGS), []
    for _ in range(TOTAL - 1):
        trainer.train_step()
        found.append(_weights(trainer))
    assert all(torch.equal(plain[1][name], found[1][name]) for name in found[1]), "the branch begins after two steps"
    state = trainer.steering[0].state_dict()
    assert state["taken"] == 5
    for name, tensor in state["mean"].items():
        wanted = torch.stack([found[step][name] for step in (0, 1, 4, 5, 6)]).mean(0)
        torch.testing.assert_close(tensor, wanted, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_averaged_is_said() -> None:
    with pytest.raises(RequestError, match="need a longer run than 8 steps, which has room for 3"):
        _trainer("latest_average", last=4, every=3)
    data = {**tiny_data(**SETTINGS), "budget": {"minutes": 1}}
    with pytest.raises(RequestError, match="a budget in minutes may move that"):
        tiny_trainer(8, **{**data, "steering": ["exponential_average"]})
