"""A run in minutes ends on time whatever the machine does; checked against a simulated one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from foretrain.clock import Clock

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
