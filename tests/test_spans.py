"""A length as a share of the run or as steps: which is which, and what refuses to be either."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import Field, ValidationError

from foretrain.section import Section
from foretrain.spans import Span, due, interval, lead, span
from tests.tiny import tiny_recipe


class Lengths(Section):
    x: Span = Field(0.1, gt=0)
    y: Span | None = Field(None, ge=0)


@pytest.mark.parametrize(
    ("written", "kept"),
    [(1, 1), (1.0, 1.0), ("1", 1), ("1.0", 1.0), (0.25, 0.25), ("0.25", 0.25), ("4K", 4000), (2e3, 2000), (500.0, 500)],
)
def test_a_point_makes_a_share(written: Any, kept: float) -> None:
    found = Lengths(x=written, y=written)
    assert (found.x, type(found.x)) == (kept, type(kept)) == (found.y, type(found.y))
    again = Lengths.model_validate_json(found.model_dump_json())
    assert type(again.x) is type(kept) and again == found


@pytest.mark.parametrize("written", [1.5, "1.5", "some", True, [1], 0, -1, -0.5])
def test_what_is_neither_is_one_fault(written: Any) -> None:
    with pytest.raises(ValidationError) as error:
        Lengths(x=written)
    assert error.value.error_count() == 1


def test_spans_in_steps() -> None:
    assert [span(length, 200) for length in (0.25, 1.0, 1, 30, 0.001, 0)] == [50, 200, 1, 30, 0, 0]
    assert [interval(length, 200) for length in (0.25, 1.0, 1, 0.001)] == [50, 200, 1, 1]
    assert [lead(length, 200) for length in (0.25, 1.0, 1, 0.001, 0, 0.0)] == [50, 200, 1, 1, 0, 0]
    assert [step for step in range(1, 9) if due(0.5, step, 8)] == [4, 8]
    assert [step for step in range(1, 9) if due(1.0, step, 8)] == [8] == [s for s in range(1, 9) if due(None, s, 8)]
    assert [step for step in range(1, 5) if due(1, step, 4)] == [1, 2, 3, 4]


def test_the_whole_run_is_not_one_step() -> None:
    recipe = tiny_recipe(evaluation={"every": 1.0}, checkpoint={"every": 1.0}, schedule={"kind": "wsd", "decay": 1.0})
    assert not due(recipe.evaluation.every, 1, 8) and due(recipe.evaluation.every, 8, 8)
    assert not due(recipe.checkpoint.every, 1, 8)
    # A decay over the whole run falls at every step after the warm-up.
    factors = [recipe.schedule.factor(step, 100) for step in range(100)]
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[2:]))
