from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, get_args

import pytest

from foretrain.claims.claim import Claim, Effect, make_claim
from foretrain.claims.judging import judge, outcome, verdict
from tests.claims.tiny_claim import claim_data, contrast, found

EFFECTS = get_args(Effect)


def claim(*expects: dict[str, Any]) -> Claim:
    return make_claim(claim_data(expects=list(expects)), Path("slow"))


SLOW = {"arm": "slow", "metric": "validation/loss", "direction": "higher", "relative": 0.25}
WSD = {"arm": "wsd", "metric": "validation/loss", "effect": "no difference"}


@pytest.mark.parametrize("expected", EFFECTS)
@pytest.mark.parametrize("told", [*EFFECTS, "undecided", None])
def test_an_outcome_for_every_pair(expected: Effect, told: str | None) -> None:
    wanted = "open" if told in ("undecided", None) else "met" if told == expected else "contradicted"
    assert outcome([expected], told) == wanted


def test_either_of_two_verdicts_meets() -> None:
    told = [outcome(["better", "no difference"], each) for each in (*EFFECTS, "undecided")]
    assert told == ["met", "contradicted", "met", "open"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_verdict_for_every_combination(count: int) -> None:
    for outcomes in itertools.product(("met", "contradicted", "open"), repeat=count):
        kinds = set(outcomes)
        wanted = "reproduced" if kinds == {"met"} else "not reproduced" if "contradicted" in kinds else "undecided"
        assert verdict(outcomes) == wanted


def test_nothing_run_is_not_judged() -> None:
    assert verdict([]) == "not run"
    assert judge(claim(SLOW), None) == ("not run", [])


@pytest.mark.parametrize(
    ("slow", "wsd", "wanted"),
    [
        ("worse", "no difference", "reproduced"),
        ("worse", "undecided", "undecided"),
        ("undecided", "no difference", "undecided"),
        ("better", "no difference", "not reproduced"),
        ("no difference", "no difference", "not reproduced"),
        ("worse", "better", "not reproduced"),
        ("worse", "worse", "not reproduced"),
        ("undecided", "worse", "not reproduced"),
        ("worse", None, "undecided"),
    ],
)
def test_a_claim_from_the_contrasts_of_its_study(slow: str, wsd: str | None, wanted: str) -> None:
    told, rows = judge(claim(SLOW, WSD), found(contrast("slow", slow), contrast("wsd", wsd)))
    assert told == wanted
    assert [row["found"] for row in rows] == [slow, wsd]


def test_the_figures_are_those_of_the_right_contrast() -> None:
    study = found(
        contrast("slow", "better", metric="task/other", difference=9.0),
        contrast("slow", "better", against="wsd", difference=8.0),
        contrast("slow", "worse"),
    )
    told, (row,) = judge(claim(SLOW), study)
    assert told == "reproduced"
    assert row["difference"] == 0.55
    assert (row["against"], row["expected"], row["published"], row["seeds"]) == ("plain", ["worse"], 0.25, 2)


def test_a_contrast_that_is_not_there_leaves_it_open() -> None:
    told, (row,) = judge(claim(SLOW), found(contrast("wsd", "better")))
    assert told == "undecided"
    assert (row["found"], row["difference"], row["seeds"]) == (None, None, 0)


def test_direction_is_read_by_which_way_is_better() -> None:
    metrics = {"validation/loss": {"direction": "higher"}}
    told, (row,) = judge(claim(SLOW), found(contrast("slow", "better"), metrics=metrics))
    assert (told, row["expected"]) == ("reproduced", ["better"])
