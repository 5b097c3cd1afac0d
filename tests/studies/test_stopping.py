from __future__ import annotations

import pytest
from pydantic import ValidationError

from foretrain.studies.stopping.successive_halving import SuccessiveHalving


def by_arm(**means: float) -> dict[str, dict[int, float]]:
    return {arm: {0: mean - 0.1, 1: mean + 0.1} for arm, mean in means.items()}


def test_the_better_half_goes_on() -> None:
    figures = by_arm(a=3, b=1, c=2, d=4, e=5, f=6)
    assert SuccessiveHalving().stopped(0.25, figures, "b") == {"d", "e", "f"}


def test_the_baseline_goes_on_beside_the_best() -> None:
    figures = by_arm(a=3, b=1, c=2, d=4)
    assert SuccessiveHalving().stopped(0.25, figures, "d") == {"a"}


def test_an_odd_number_is_rounded_up() -> None:
    assert SuccessiveHalving().stopped(0.25, by_arm(a=1, b=2, c=3), "a") == {"c"}


def test_failed_trials_rank_last() -> None:
    figures = {**by_arm(a=9, b=8, c=7), "gone": {}}
    assert "gone" in SuccessiveHalving().stopped(0.25, figures, "a")


def test_another_factor() -> None:
    figures = by_arm(a=1, b=2, c=3, d=4, e=5, f=6)
    assert SuccessiveHalving(factor=3).stopped(0.5, figures, "a") == {"c", "d", "e", "f"}


@pytest.mark.parametrize("at", [[0.5, 0.25], [0.0], [1.0], [0.5, 0.5], []])
def test_rungs_rise_within_the_budget(at: list[float]) -> None:
    with pytest.raises(ValidationError):
        SuccessiveHalving(at=at)


def test_an_arm_that_failed_on_a_seed_comes_after_those_that_did_not() -> None:
    figures = {"plain": {0: 2.0, 1: 3.0}, "a": {0: 2.1, 1: 3.1}, "lucky": {0: 1.9}, "b": {0: 2.2, 1: 3.2}}
    assert SuccessiveHalving().stopped(0.5, figures, "plain") == {"lucky", "b"}
