from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.claims.claim import Claim, Expectation, glance, load_claim, make_claim
from foretrain.errors import RequestError
from tests.claims.tiny_claim import claim_data, write_claim

SLOW = {"arm": "slow", "metric": "validation/loss", "direction": "higher"}


def made(folder: Path, **changes: Any) -> Claim:
    return make_claim(claim_data(**changes), folder / "slow")


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(RequestError) as error:
        made(folder, **changes)
    return str(error.value)


def with_study(**changes: Any) -> dict[str, Any]:
    return {**claim_data()["study"], **changes}


def test_the_study_at_each_scale(tmp_path: Path) -> None:
    scales = {
        "smoke": {"seeds": 2, "base.budget.steps": 2},
        "full": {"base": {"budget": {"tokens": "4K"}, "schedule": {"decay": 0.3, "kind": "wsd"}}},
    }
    claim = made(tmp_path, scales=scales)
    home = tmp_path / "slow"
    small, smoke, full = (claim.at(scale, home) for scale in ("small", "smoke", "full"))  # type: ignore[arg-type]
    assert small.name == "claims-slow"
    assert (small.seeds, small.base["budget"]["steps"]) == ([0, 1, 2, 3], 8)
    assert (smoke.seeds, smoke.base["budget"]["steps"]) == ([0, 1], 2)
    # Another unit of the budget replaces the first, another kind its fields.
    assert (full.base["budget"]["tokens"], full.base["budget"]["steps"]) == (4000, None)
    assert (full.base["schedule"]["kind"], full.base["schedule"]["decay"]) == ("wsd", 0.3)
    assert claim.at("small", home, seeds=6).seeds == list(range(6))


def test_a_claim_without_a_full_scale_says_so(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"slow has no full scale.*small"):
        made(tmp_path).at("full", tmp_path / "slow")


def test_all_faults_come_in_one_message(tmp_path: Path) -> None:
    text = refused(
        tmp_path,
        paper={"title": "Slow is bad", "arxiv": "arXiv:2001.00001", "year": 2020},
        expects=[{**SLOW, "arm": "slwo"}, {**SLOW, "metric": "validation/los"}],
        refuted="never",
        study=with_study(arms={"plain": {}, "slow": {"optimizer.lrr": 1}}),
    )
    assert "slow/claim.yaml has 5 faults" in text
    for fault in (
        "paper.arxiv",
        "did you mean 'refuted_if'",
        "expects[0].arm: there is no arm 'slwo'; did you mean 'slow'?",
        "expects[1].metric: there is no metric 'validation/los'; did you mean 'validation/loss'?",
        "study, arm 'slow': optimizer: there is no key 'lrr'",
    ):
        assert fault in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"expects": [{**SLOW, "arm": "plain"}]}, "'plain' is compared with itself"),
        ({"expects": [{**SLOW, "against": "wsd"}]}, r"\[slow, wsd\] is no planned contrast.*\[slow, plain\]"),
        ({"expects": [{**SLOW, "against": "wdd"}]}, "did you mean 'wsd'"),
        ({"expects": []}, "expects"),
        ({"expects": [{**SLOW, "effect": "worse"}]}, "either `direction`"),
        ({"expects": [{"arm": "slow", "metric": "validation/loss"}]}, "either `direction`"),
        ({"expects": [{**SLOW, "relative": -0.2}]}, "relative"),
        ({"study": {"arms": {"plain": {}}}}, "should have `base`"),
        ({"study": with_study(arms=["plain"])}, "should have `base`"),
        ({"study": with_study(metrics={"validation/loss": {"judged": False}})}, "gets no verdict"),
        ({"scales": {"smoke": {}}}, "scales.smoke"),
        ({"scales": {"smoke": {"seeds": 2}, "ful": {}}}, "did you mean 'full'"),
        ({"scales": {"smoke": {"base.budget.step": 2}}}, "scales.smoke: study, base: budget: there is no key 'step'"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        made(tmp_path, **changes)


def test_a_fault_of_the_study_is_told_once(tmp_path: Path) -> None:
    text = refused(tmp_path, study=with_study(seedz=3))
    assert text.count("seedz") == 1
    assert "1 fault:" in text


@pytest.mark.parametrize(
    ("wanted", "better", "verdicts"),
    [
        ({"direction": "lower"}, "lower", ["better"]),
        ({"direction": "lower"}, "higher", ["worse"]),
        ({"direction": "higher"}, "higher", ["better"]),
        ({"direction": "higher"}, "lower", ["worse"]),
        ({"effect": "no difference"}, "lower", ["no difference"]),
        ({"effect": "worse"}, "higher", ["worse"]),
        ({"effect": ["better", "no difference"]}, "lower", ["better", "no difference"]),
    ],
)
def test_the_verdicts_that_meet_an_expectation(wanted: dict[str, Any], better: str, verdicts: list[str]) -> None:
    assert Expectation(arm="a", metric="m", **wanted).verdicts(better) == verdicts


@pytest.mark.parametrize("effects", [[], ["better", "worse", "no difference"]])
def test_an_expectation_that_everything_meets_is_none(effects: list[str]) -> None:
    with pytest.raises(ValueError, match="one verdict or two"):
        Expectation(arm="a", metric="m", effect=effects)  # type: ignore[arg-type]


def test_the_digest_is_of_what_decides(tmp_path: Path) -> None:
    home = write_claim(tmp_path)
    before = glance(home).digest("small", home)

    def after(**changes: Any) -> str:
        return make_claim(claim_data(**changes), home).digest("small", home)

    same = {"claim": "Other words.", "refuted_if": "...", "decided": ["A thing."], "scales": {"smoke": {"seeds": 3}}}
    assert after(**same) == before
    assert after(expects=[{**SLOW, "relative": 0.5}]) == before
    assert after(expects=[{**SLOW, "direction": "lower"}]) != before
    assert after(study=with_study(seeds=3)) != before
    assert after(scales={"smoke": {"seeds": 2}, "small": {"seeds": 3}}) != before


def test_the_digest_sees_a_base_in_a_file(tmp_path: Path) -> None:
    home = write_claim(tmp_path, study=with_study(base="base.yaml"))
    (home / "base.yaml").write_text("budget: {steps: 3}\n")
    before = glance(home).digest("small", home)
    (home / "base.yaml").write_text("budget: {steps: 4}\n")
    assert glance(home).digest("small", home) != before


def test_files_that_are_no_claims(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        load_claim(tmp_path)
    for text, told in (("- a\n", "YAML mapping"), ("a: [\n", "not valid YAML")):
        (tmp_path / "claim.yaml").write_text(text)
        with pytest.raises(RequestError, match=told):
            load_claim(tmp_path)
