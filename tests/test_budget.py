"""Budgets as whole steps, in every unit; costs per kind of step; when things are due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from foretrain.budget import LARGEST, Meter, Pace, steps_for
from foretrain.errors import RequestError
from foretrain.recipe import Budget
from foretrain.steering.base import Gradient, GradientOf, Steering
from tests.tiny import tiny_trainer


def steps(
    budget: dict[str, Any],
    pace: Pace | None = None,
    kind_of: Callable[[int], str] = lambda step: "",
    spent: float = 0.0,
    beside: Callable[[int], float] = lambda steps: 0.0,
) -> int:
    return steps_for(Budget.model_validate(budget), 1000, pace, kind_of, spent=spent, beside=beside)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"steps": 7}, 7),
        ({"tokens": 7400}, 7),
        ({"tokens": "7.6K"}, 8),
        ({"flops": 70}, 7),
        ({"flops": 74}, 7),
        ({"flops": 76}, 8),
        ({"minutes": 1}, 30),
    ],
)
def test_every_unit(budget: dict[str, Any], expected: int) -> None:
    assert steps(budget, Pace({"": 10}, seconds=2.0, evaluation=0.0)) == expected


def test_minutes_pay_for_everything_the_command_does() -> None:
    pace = Pace({"": 10}, seconds=2.0, evaluation=5.0)
    assert steps({"minutes": 1}, pace, spent=20) == 20
    assert steps({"minutes": 1}, pace, spent=20, beside=lambda steps: 2 * pace.evaluation) == 15
    # Two seconds of every ten steps go to an evaluation: n steps cost 2 n + 2 (n // 10) seconds.
    found = steps({"minutes": 10}, pace, beside=lambda steps: 2.0 * (steps // 10))
    assert 598 <= 2 * found + 2 * (found // 10) <= 602


def test_kinds_of_steps_are_summed() -> None:
    pace = Pace({"plain": 10, "scored": 30}, seconds=1.0, evaluation=0.0)
    kind_of = lambda step: "scored" if step % 4 == 0 else "plain"  # noqa: E731
    # Every four steps cost 60.
    assert steps({"flops": 600}, pace, kind_of) == 40
    for total in range(20, 200):
        found = steps({"flops": total}, pace, kind_of)
        costs = [30 if step % 4 == 0 else 10 for step in range(found + 1)]
        assert abs(sum(costs[:found]) - total) <= abs(sum(costs) - total)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"tokens": 499}, "499 tokens are less than one step of 1000"),
        ({"flops": 4}, r"4 FLOPs do not pay for one step \(10\)"),
        ({"minutes": 0.01}, "minutes do not pay for one step of 2.00 s"),
        ({"steps": 2 * LARGEST}, "look at its unit"),
    ],
)
def test_a_budget_that_makes_no_run_is_refused(budget: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        steps(budget, Pace({"": 10}, seconds=2.0, evaluation=0.0))


def test_the_meter_counts_each_kind_once_and_adds_it_every_time() -> None:
    small, large = torch.ones(2, 3), torch.ones(3, 4)
    calls: list[int] = []

    def product() -> int:
        calls.append(1)
        small @ large
        return len(calls)

    meter = Meter(world=2)
    assert [meter.count("one", product) for _ in range(3)] == [1, 2, 3]
    assert meter.per_kind == {"one": 2 * (2 * 2 * 3 * 4)}
    meter.count("none", lambda: None)
    assert meter.total == 3 * 96
    other = Meter(world=2)
    other.load_state_dict(meter.state_dict())
    other.count("one", product)
    assert other.total == 4 * 96 and meter.total == 3 * 96


def test_the_meter_keeps_the_memory_of_the_largest_kind() -> None:
    meter = Meter(world=2)
    for kind, size in (("small", 10), ("large", 1000), ("middle", 100), ("large", 5000)):
        meter.count(kind, lambda size=size: torch.ones(size).sum())  # type: ignore[misc]
    assert meter.memory == 4 * 1000 + 4, "only the first step of a kind is measured; one process, not all of them"
    other = Meter(world=2)
    other.load_state_dict(meter.state_dict())
    assert (other.memory, other.per_kind) == (meter.memory, meter.per_kind)


def test_a_state_from_before_the_memory_was_kept_is_measured_again() -> None:
    product = lambda: torch.ones(2, 3) @ torch.ones(3, 4)  # noqa: E731
    meter, old = Meter(), Meter()
    for _ in range(3):
        meter.count("one", product)
    old.load_state_dict({"per_kind": {"one": 48}, "total": 96})
    old.count("one", product)
    assert old.state_dict() == meter.state_dict() and old.memory == 4 * (6 + 12 + 8)


class TryEveryThird(Steering):
    """Every third step takes the gradient twice."""

    kind: str = "try_every_third"

    def step_kind(self, step: int) -> str:
        return "double" if step % 3 == 2 else ""

    def gradient(self, of: GradientOf, group: Any = None, at: Any = None) -> Gradient:
        self._turns.append(1)
        if len(self._turns) % 3 == 0:
            of(group, at)
        return of(group, at)

    _turns: list[int] = []


def test_a_rehearsal_counts_every_kind_of_step() -> None:
    trainer = tiny_trainer(9, steering=["try_every_third"])
    pace = trainer.rehearse(1, 0)
    assert set(pace.flops) == {"", "double"}
    assert trainer.step == 0 and trainer.meter.per_kind == {}
