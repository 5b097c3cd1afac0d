"""A run in minutes ends on time whatever the machine does; checked against a simulated one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretrain import api, execution
from foretrain.checkpoints import Checkpointer
from foretrain.clock import Clock
from foretrain.files import read_json
from foretrain.recipe import make_recipe
from tests.tiny import tiny_data

MINUTES = 5.0
CLOSING = 6.0


class Machine:
    """Time that passes only where it is spent."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time


def simulate(planned: int, seconds: Callable[[int], float]) -> tuple[float, int]:
    """Minutes a run takes, and its steps, when step i takes `seconds(i)`."""
    machine = Machine()
    begin = machine.time
    clock = Clock(begin + MINUTES * 60, MINUTES, CLOSING, machine.now)
    machine.time += 10  # preparation
    clock.begin(0)
    step, total = 0, planned
    while step < total:
        machine.time += seconds(step)
        step += 1
        if clock.due(step, total):
            total = clock.total(step, total)
    return (machine.time + CLOSING - begin) / 60, step


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(lambda step: 0.1, id="as rehearsed"),
        pytest.param(lambda step: 0.07, id="faster"),
        pytest.param(lambda step: 0.16, id="slower"),
        pytest.param(lambda step: 0.1 if step < 1000 else 0.15, id="slower from a point on"),
        pytest.param(lambda step: 0.1 if step < 2000 else 0.07, id="faster late"),
        pytest.param(lambda step: 0.1 + 0.00003 * step, id="ever slower"),
        pytest.param(lambda step: 0.13 if step // 200 % 2 else 0.08, id="by turns"),
    ],
)
def test_ends_on_time(seconds: Callable[[int], float]) -> None:
    assert simulate(2840, seconds)[0] == pytest.approx(MINUTES, rel=0.05)


def test_plan_stands_while_it_is_nearly_kept() -> None:
    assert simulate(2840, lambda step: 0.1)[1] == 2840
    assert simulate(2840, lambda step: 0.102)[1] == 2840


def test_a_pause_does_not_end_the_run() -> None:
    assert simulate(2840, lambda step: 3600.0 if step == 700 else 0.1)[1] > 1000


def test_does_not_look_before_the_first_step_or_after_the_last() -> None:
    clock = Clock(100.0, 1.0, 0.0, lambda: 0.0)
    clock.begin(40)
    assert not clock.due(40, 42)
    assert clock.due(41, 42)
    assert not clock.due(42, 42)


def test_shares_count_from_where_the_run_begins() -> None:
    clock = Clock(100.0, 1.0, 0.0, lambda: 0.0)
    clock.begin(1000)
    assert not clock.due(1049, 1200)
    assert clock.due(1050, 1200)


class Impatient(Clock):
    """Sees after three steps that six are all there is time for."""

    def due(self, step: int, total: int) -> bool:
        return step == 3

    def total(self, step: int, total: int) -> int:
        return 6


def test_a_run_ends_at_the_step_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "Clock", Impatient)
    monkeypatch.setattr(execution, "REHEARSAL_SHARE", 0.0)
    recipe = make_recipe(tiny_data(budget={"minutes": 1}, checkpoint={"every": 1000, "keep": 5}))
    saved: list[int] = []
    save = Checkpointer.save

    def noted(self: Checkpointer, step: int, *given: Any, **named: Any) -> None:
        saved.append(step)
        save(self, step, *given, **named)

    monkeypatch.setattr(Checkpointer, "save", noted)
    run = api.run(recipe, out=tmp_path / "run", quiet=True)
    plan = read_json(run.path / "plan.json")
    assert plan["total_steps"] == 6
    assert plan["notes"][-1].startswith("at step 3 the last step moved from ")
    # The schedule follows: the last step's learning rate is that of a run of six.
    lines = [line for line in run.metrics() if "lr" in line]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    factor = recipe.schedule.factor
    assert [line["lr"] / recipe.optimizer.lr for line in lines[3:]] == [factor(step, 6) for step in (3, 4, 5)]
    # Where it moved there is a checkpoint, so that resuming by the new plan is exact.
    assert saved == [3, 6]
    result = run.result()
    assert result is not None and result["cost"]["steps"] == 6
