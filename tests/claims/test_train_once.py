"""A claim on many interventions in one run: what it may expect, and how it is judged from what such a study left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.claims.claim import make_claim
from foretrain.claims.finding import Entry
from foretrain.claims.judging import judge
from foretrain.claims.listing import baseline
from foretrain.claims.register import register
from foretrain.claims.results import result_data
from foretrain.claims.running import run_claim
from foretrain.claims.train_once import CHECK, as_study, comparisons
from foretrain.errors import RequestError
from foretrain.studies.interference import CONTROL, JOINT, UNTOUCHED, agreement, answers, cost, interference
from foretrain.studies.train_once import TrainOnceStudy
from tests.claims.tiny_claim import claim_data, write_claim
from tests.studies.test_interference import made_up
from tests.studies.test_train_once import data as once_data

CONTROLLED = {"path": "builtin:passwords", "options": {"version": 1}, "repeats": 1, "disturbs": "facts"}
EXPECTS = [
    {"arm": "joint", "against": "facts", "metric": "facts", "effect": "no difference"},
    {"arm": "joint", "metric": "validation/loss", "effect": "no difference"},
    {"arm": "control", "metric": "check/facts", "effect": "worse"},
    {"arm": "others", "metric": "check/poison", "effect": "no difference"},
]
NAMES = ["facts", "poison"]


def claim_of(**changes: Any) -> dict[str, Any]:
    study = once_data()
    one = {"path": "builtin:passwords", "repeats": 2, "metric": "task/facts/loss"}
    study["train_once"] = {
        "interventions": {"facts": one, "poison": {**one, "options": {"seed": 3}}},
        "check": {"steps": 20, "repeats": 1, "stop": False, "control": CONTROLLED},
        "solo": True,
    }
    del study["name"]
    scales = {"smoke": {"seeds": 1, "base.budget.steps": 40}}
    return claim_data(study=study, expects=EXPECTS, scales=scales, **changes)


def left(folder: Path, check: dict[tuple[str, str], float], full: dict[tuple[str, str], float]) -> Path:
    """The directory of a study with these effects."""
    own = {(name, name): 0.5 for name in NAMES}
    short, long = made_up({**own, **check}), made_up({**own, **full}, seed=1)
    short["arms"][CONTROL] = made_up({("sums", "facts"): check.get((CONTROL, "facts"), 0.0)}, seed=2)["arms"]["sums"]
    for part, study in (("check", short), ("full", long)):
        for arm in study["arms"].values():
            arm |= {"failed": 0, "trials": [], "steps": 1, "tokens": 1, "seconds": 1.0}
            for figures in arm["metrics"].values():
                figures |= {"mean": 0.0, "sd": 0.0}
        study |= {"baseline": UNTOUCHED, "match": {"unit": "steps"}}
        study["totals"] |= {"trials": 6, "seconds": 2.0}
        (folder / part).mkdir(parents=True)
        (folder / part / "study.json").write_text(json.dumps(study))
    once = {
        "name": "both",
        "interventions": NAMES,
        "check": interference(short, NAMES, "facts"),
        "stopped": False,
        "full": answers(long, NAMES, "validation/loss"),
        "solo": agreement(long, NAMES),
        "cost": cost(long, short, NAMES),
    }
    (folder / "train_once.json").write_text(json.dumps(once))
    return folder


def test_the_claim_is_a_study_of_interventions(tmp_path: Path) -> None:
    claim = make_claim(claim_of(), tmp_path / "once")
    study = claim.at("small", tmp_path / "once", seeds=2)
    assert isinstance(study, TrainOnceStudy) and study.full().seeds == [0, 1] and study.name == "claims-once"
    made = comparisons(study)
    assert len(made) == len(set(made)) == 3 + 2 + 2 * (2 + 3) + 2
    assert baseline(Entry("once", tmp_path, claim, None)) == UNTOUCHED


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"arm": "joint", "metric": "fact", "effect": "better"}, "no metric 'fact'; did you mean 'facts'"),
        (
            {"arm": "joint", "against": "poison", "metric": "facts", "effect": "better"},
            r"\[joint, poison\] is no comparison of the study on facts; there are: \[joint, untouched\], \[joint, f",
        ),
    ],
)
def test_what_is_not_compared_is_refused(tmp_path: Path, expected: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        make_claim({**claim_of(), "expects": [expected]}, tmp_path / "once")


def test_faults_of_the_study_are_told(tmp_path: Path) -> None:
    data = claim_of()
    data["study"]["train_once"]["interventions"]["facts"]["repaets"] = 2
    with pytest.raises(RequestError, match=r"1 fault:\n.*'repaets'.*'repeats'") as error:
        make_claim(data, tmp_path / "once")
    assert "expects" not in str(error.value)


SEEN = {(CONTROL, "facts"): -0.3}


@pytest.mark.parametrize(
    ("check", "full", "verdict", "found"),
    [
        (SEEN, {}, "reproduced", ["no difference", "no difference", "worse", "no difference"]),
        ({}, {}, "undecided", ["no difference", "no difference", "undecided", "no difference"]),
        (
            {(CONTROL, "facts"): 0.3},
            {},
            "not reproduced",
            ["no difference", "no difference", "better", "no difference"],
        ),
        (
            {**SEEN, ("facts", "poison"): 0.3},
            {},
            "not reproduced",
            ["no difference", "no difference", "worse", "better"],
        ),
        (
            SEEN,
            {("poison", "facts"): -0.2},
            "not reproduced",
            ["worse", "no difference", "worse", "no difference"],
        ),
    ],
)
def test_it_is_judged_by_its_cells(
    tmp_path: Path, check: dict[Any, float], full: dict[Any, float], verdict: str, found: list[str]
) -> None:
    claim = make_claim(claim_of(), tmp_path / "once")
    study = as_study(left(tmp_path / "out", check, full))
    told, rows = judge(claim, study)
    assert (told, [row["found"] for row in rows]) == (verdict, found)
    result = result_data(claim, tmp_path / "once", "small", study, {}, "2026-01-01")
    assert set(result["arms"]) >= {UNTOUCHED, JOINT, CONTROL, *NAMES}
    assert set(result["arms"]["facts"]["metrics"]) >= {"facts", CHECK + "facts", "validation/loss"}
    assert set(result["arms"][CONTROL]["metrics"]) >= {CHECK + "facts"}
    assert result["totals"]["trials"] == 12
    assert any("The control" in note for note in result["notes"])
    page = register([Entry("once", tmp_path, claim, result)])
    assert f"**{verdict}**" in page and "`path: builtin:passwords`; `repeats: 2`" in page
    assert "check · facts" in page.split("**Verdict.**")[1] and "| check · facts" not in page


def test_a_real_one_from_end_to_end(tmp_path: Path) -> None:
    home = write_claim(tmp_path / "claims", "once", **claim_of())
    result = run_claim(home.name, scale="smoke", folder=home.parent, out=tmp_path / "out", quiet=True)
    assert [row["seeds"] for row in result["expectations"]] == [1, 1, 1, 1]
    assert all(row["words"] for row in result["expectations"])
    assert (tmp_path / "out" / "report.html").is_file() and result["versions"]["python"]
