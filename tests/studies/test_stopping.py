from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from foretrain.forecasts.curves import Curve
from foretrain.forecasts.power_law import PowerLaw
from foretrain.studies.conducting import conduct
from foretrain.studies.stopping.predicted import Predicted
from foretrain.studies.stopping.successive_halving import SuccessiveHalving
from tests.studies.tiny_study import study_data, tiny_study


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


# Predicted ------------------------------------------------------------------------------------------------------------


def curve(end: float, name: str) -> Curve:
    """Half of a curve that levels off at `end`."""
    steps = np.arange(1, 51)
    values = (end + 2 * steps**-1.0) * (1 + 1e-4 * np.sin(steps))
    return Curve(name, steps, values=values, total=100)


def test_an_arm_without_a_chance_is_stopped() -> None:
    ends = {"base": 3.0, "good": 1.0, "near": 1.02, "bad": 2.0}
    curves = {arm: {seed: curve(end, arm) for seed in (0, 1)} for arm, end in ends.items()}
    figures = {arm: {seed: found.values[-1] for seed, found in told.items()} for arm, told in curves.items()}
    law = PowerLaw(refits=8)
    rule = Predicted(forecaster=law)
    # The baseline goes on in any case; `near` ends below what is the best so far.
    assert rule.stopped(0.5, figures, "base", curves) == {"bad"}
    # Against what the leading arm will end at, it has no chance either.
    assert Predicted(forecaster=law, best="predicted").stopped(0.5, figures, "base", curves) == {"bad", "near"}
    # Nothing is known of an arm that the forecaster cannot go on with.
    assert rule.stopped(0.5, figures, "base", {**curves, "bad": {0: curves["bad"][0].between(1, 2)}}) == set()
    assert rule.stopped(0.5, figures, "base", {}) == set()


def test_a_study_stops_what_is_predicted_to_lose(tmp_path: Path) -> None:
    base = {**study_data()["base"], "budget": {"steps": 16}, "evaluation": {"every": 1, "tokens": 512}}
    study = tiny_study(
        base=base,
        arms={"plain": {}, "slow": {"optimizer.lr": 1e-6}},
        stopping={
            "kind": "predicted",
            "at": [0.5],
            "forecaster": {"kind": "power_law", "refits": 8},
            "best": "predicted",
        },
        seeds=1,
    )
    data = conduct(study, tmp_path, report=False)
    assert data["arms"]["slow"]["stopped"] == 0.5
    assert data["arms"]["plain"]["stopped"] is None
