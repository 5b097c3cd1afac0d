from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from foretrain.parts import kinds
from foretrain.schedules.base import Schedule, curve
from foretrain.schedules.constant import Constant
from foretrain.schedules.cosine import Cosine
from foretrain.schedules.infinite import Infinite
from foretrain.schedules.linear import Linear
from foretrain.schedules.wsd import Wsd
from foretrain.spans import span

lengths = st.one_of(st.floats(0, 0.999), st.integers(0, 300).map(float))
levels = st.floats(0, 1)
any_schedule = st.one_of(
    st.builds(Constant, warmup=lengths),
    st.builds(Cosine, warmup=lengths, floor=levels),
    st.builds(Linear, warmup=lengths, floor=levels),
    st.builds(Wsd, warmup=lengths, decay=lengths, floor=levels, curve=st.sampled_from(["linear", "sqrt", "cosine"])),
    st.builds(
        Infinite,
        warmup=lengths,
        cooldown=lengths,
        anneal=lengths,
        constant=st.floats(0.2, 1),
        floor=st.floats(0.001, 0.2),
        curve=st.sampled_from(["linear", "cosine", "inverse_sqrt"]),
    ),
)


def test_every_kind_is_tested_here() -> None:
    assert {"constant", "cosine", "linear", "wsd", "infinite"} <= set(kinds(Schedule))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(schedule=any_schedule, total=st.integers(1, 400))
def test_factors_stay_in_bounds_and_fall_after_the_warm_up(schedule: Schedule, total: int) -> None:
    values = curve(schedule, total)
    assert len(values) == total
    assert all(0 <= value <= 1 for value in values)
    start = min(span(schedule.warmup, total), total)
    for step in range(start):
        assert values[step] == (step + 1) / start
    after = values[start:]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(after))
    assert all(value >= getattr(schedule, "floor", 1.0) - 1e-12 for value in after)
    assert values == [schedule.factor(step, total) for step in range(total)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(schedule=any_schedule, total=st.integers(200, 2000))
def test_no_step_falls_further_than_its_phase_allows(schedule: Schedule, total: int) -> None:
    """A fall over n steps has no step steeper than 10 / n (or the square root's first, 1 / sqrt(n))."""
    values = curve(schedule, total)
    start = min(span(schedule.warmup, total), total)
    shortest = total - start
    for name in ("decay", "cooldown", "anneal"):
        if hasattr(schedule, name):
            # What lies between the phases may cut one short.
            shortest = min(shortest, max(1, span(getattr(schedule, name), total)))
    if isinstance(schedule, Infinite):
        cut = total - start - span(schedule.cooldown, total)
        shortest = min(shortest, max(1, cut)) if cut > 0 else shortest
    steepest = max((a - b for a, b in pairwise(values[start:])), default=0.0)
    assert steepest <= min(1.0, 10 / max(1, shortest)) or steepest <= 1 / math.sqrt(max(1, shortest)) + 1e-9


def test_constant() -> None:
    assert curve(Constant(warmup=0), 5) == [1.0] * 5
    assert curve(Constant(warmup=2), 4) == [0.5, 1.0, 1.0, 1.0]


def test_linear_in_closed_form() -> None:
    assert curve(Linear(warmup=0), 4) == [1.0, 0.75, 0.5, 0.25]
    assert curve(Linear(warmup=2, floor=0.2), 6) == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4])


def test_cosine_in_closed_form() -> None:
    values = curve(Cosine(warmup=10, floor=0.1), 110)
    assert values[:10] == [(i + 1) / 10 for i in range(10)]
    assert values[10] == 1.0
    assert values[60] == pytest.approx(0.55)
    for i in range(100):
        assert values[10 + i] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 100)))
    assert values[-1] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.99)) / 2)


def test_cosine_is_that_of_transformers() -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    for mine, theirs in (
        (Cosine(warmup=7, floor=0), get_cosine_schedule_with_warmup),
        (Linear(warmup=7, floor=0), get_linear_schedule_with_warmup),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        schedule = theirs(optimizer, 7, 50)
        values = []
        for _ in range(50):
            values.append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
        # Their warm-up starts at 0, ours at 1 / 7; the rest is the same.
        assert curve(mine, 50)[7:] == pytest.approx(values[7:])


@pytest.mark.parametrize(
    ("form", "formula"),
    [
        ("linear", lambda u: 1 - u),
        ("sqrt", lambda u: 1 - math.sqrt(u)),
        ("cosine", lambda u: 0.5 * (1 + math.cos(math.pi * u))),
    ],
)
def test_wsd_in_closed_form(form: Any, formula: Any) -> None:
    values = curve(Wsd(warmup=0.1, decay=0.2, curve=form, floor=0.05), 100)
    assert values[9:80] == [1.0] * 71
    assert values[80] == 1.0
    for i in range(20):
        assert values[80 + i] == pytest.approx(0.05 + 0.95 * formula(i / 20))


def test_wsd_plateau_does_not_depend_on_the_length_of_the_run() -> None:
    schedule = Wsd(warmup=10, decay=20)
    assert curve(schedule, 100)[:80] == curve(schedule, 500)[:80]
    assert curve(schedule, 100)[80:] == curve(schedule, 500)[480:]


@pytest.mark.parametrize(
    ("form", "formula"),
    [
        ("cosine", lambda u: 0.5 * (1 + math.cos(math.pi * u))),
        ("linear", lambda u: 1 - u),
        ("inverse_sqrt", lambda u: 1 - (1 / math.sqrt(1 + 10 * u) - 1) / (1 / math.sqrt(11) - 1)),
    ],
)
def test_infinite_in_closed_form(form: Any, formula: Any) -> None:
    values = curve(Infinite(warmup=0.05, cooldown=0.1, anneal=0.2, constant=0.1, floor=0.01, curve=form), 1000)
    assert values[49] == values[50] == 1.0
    for i in range(100):
        assert values[50 + i] == pytest.approx(0.1 + 0.9 * formula(i / 100))
    assert values[150:800] == [0.1] * 650
    for i in range(200):
        assert values[800 + i] == pytest.approx(0.1 * 0.1 ** ((i + 1) / 200))
    assert values[-1] == pytest.approx(0.01)


def test_infinite_for_later_data_starts_at_the_constant() -> None:
    later = Infinite(warmup=0, cooldown=0, anneal=0, constant=0.25)
    assert curve(later, 7) == [0.25] * 7
    assert curve(later, 10**4)[-1] == 0.25


def test_infinite_cuts_later_phases_of_a_short_run() -> None:
    values = curve(Infinite(warmup=10, cooldown=50, anneal=50, constant=0.5, floor=0.25), 80)
    assert values[60] == pytest.approx(0.5 * 0.5 ** (1 / 20))
    assert values[-1] == pytest.approx(0.25)
    assert max(a - b for a, b in pairwise(values[10:])) < 0.04


def test_warm_up_longer_than_the_run() -> None:
    assert curve(Cosine(warmup=100), 4) == [0.25, 0.5, 0.75, 1.0]


def test_lengths_are_shares_below_one_and_steps_from_one_on() -> None:
    assert (span(0.5, 10), span(1, 10), span(3, 10), span(0, 10), span(0.04, 10)) == (5, 1, 3, 0, 0)
    assert Cosine(warmup="2K").warmup == 2000  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Cosine, {"floor": 1.1}),
        (Linear, {"warmup": -0.1}),
        (Wsd, {"curve": "cubic"}),
        (Infinite, {"constant": 0.1, "floor": 0.2}),
    ],
)
def test_settings_out_of_bounds(kind: type[Schedule], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**fields)
