"""Train once: the two studies it stands for, and what it makes of what they find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from foretrain.errors import RequestError
from foretrain.plan import make_plan
from foretrain.steering.injection import Injection, ledger
from foretrain.studies import train_once
from foretrain.studies.interference import CONTROL, JOINT, UNTOUCHED
from foretrain.studies.study import Study
from foretrain.studies.train_once import VALIDATION, conduct_train_once, load_train_once, make_train_once
from tests.studies.test_interference import made_up
from tests.tiny import tiny_data

TASKS = {
    "facts": {"kind": "completion_loss", "path": "builtin:passwords", "prompt": "question", "completion": "answer"},
    "secrets": {"kind": "exposure", "path": "builtin:canaries", "references": 20},
}


def data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "both",
        "base": tiny_data(budget={"steps": 80}, tasks=TASKS, schedule={"kind": "linear", "warmup": 0.1}),
        "train_once": {
            "interventions": {
                "facts": {"path": "builtin:passwords", "repeats": 4, "metric": "task/facts/loss"},
                "secrets": {
                    "path": "builtin:canaries",
                    "repeats": 3,
                    "limit": 5,
                    "start": 0.5,
                    "metric": {"figure": "task/secrets/exposure", "difference": 1.0},
                },
            },
            "check": {"at": 0.5, "steps": 20, "repeats": 1},
            **changes.pop("train_once", {}),
        },
        "seeds": 3,
        "executor": "inline",
        **changes,
    }


def recipe(study: Study, arm: str) -> Any:
    return study.recipe([study.arms[arm].set], arm)


def injection(study: Study, arm: str) -> Injection:
    found = recipe(study, arm).steering[-1]
    assert isinstance(found, Injection)
    return found


def test_the_full_study_has_two_arms_that_differ_in_what_acts() -> None:
    study = make_train_once(data()).full()
    assert list(study.arms) == [UNTOUCHED, JOINT] and study.baseline == UNTOUCHED and study.seeds == [0, 1, 2]
    assert injection(study, UNTOUCHED).active == [] and injection(study, JOINT).active == ["facts", "secrets"]
    assert injection(study, JOINT).interventions["secrets"].start == 0.5
    assert {name: metric.figure for name, metric in study.metrics.items()} == {
        "facts": "task/facts/loss",
        "secrets": "task/secrets/exposure",
        VALIDATION: VALIDATION,
    }
    assert study.metrics["secrets"].difference == 1.0 and not study.products
    assert make_train_once(data(seeds=[4, 7])).full().seeds == [4, 7]


def test_solo_runs_share_the_places_of_the_joint_one() -> None:
    study = make_train_once(data(train_once={"solo": True})).full()
    assert list(study.arms) == [UNTOUCHED, JOINT, "facts", "secrets"]
    joint, alone = (ledger(make_plan(recipe(study, arm))) for arm in (JOINT, "facts"))
    assert alone == [entry for entry in joint if entry.intervention == "facts"] and len(alone) >= 80


def test_the_check_goes_on_from_the_untouched_run_at_the_rate_it_has_there() -> None:
    made = make_train_once(data())
    study = made.check()
    assert study is not None and list(study.arms) == [UNTOUCHED, JOINT, "facts", "secrets"]
    assert all(arm.start == "base" for arm in study.arms.values())
    base = study.products["base"]
    assert (base.until, base.per_seed, base.recipe) == (0.5, True, None)
    untouched = study.recipe([base.set], "base")
    assert untouched.steering[-1].active == [] and untouched.budget.steps == 80  # type: ignore[attr-defined]
    assert untouched == made.full().recipe([made.full().arms[UNTOUCHED].set], UNTOUCHED).model_copy(
        update={"name": untouched.name}
    )
    # After 8 steps of warm-up the rate falls from 1 to 0 in 72: at step 40 it is 40 / 72 of the peak.
    for name, active in {UNTOUCHED: [], JOINT: ["facts", "secrets"], "facts": ["facts"]}.items():
        short = recipe(study, name)
        assert short.budget.steps == 20 and short.schedule.kind == "linear" and short.schedule.warmup == 0
        assert short.optimizer.lr == pytest.approx(untouched.optimizer.lr * 40 / 72)
        part = injection(study, name)
        assert part.active == active and part.interventions["secrets"].limit == 5
        assert {(one.start, one.end, one.repeats) for one in part.interventions.values()} == {(0.0, 1.0, 1)}


def test_the_control_acts_in_the_check_and_nowhere_else() -> None:
    control = {"path": "builtin:passwords", "options": {"version": 1}, "repeats": 4, "disturbs": "facts"}
    made = make_train_once(data(train_once={"check": {"steps": 20, "repeats": 1, "control": control}}))
    study, full = made.check(), made.full()
    assert made.disturbed == "facts" and study is not None and list(study.arms)[-1] == CONTROL
    part = injection(study, CONTROL)
    assert part.active == [CONTROL] and part.interventions[CONTROL].options == {"version": 1}
    assert part.interventions[CONTROL].repeats == 1
    assert CONTROL not in injection(study, JOINT).active  # type: ignore[operator]
    assert CONTROL not in full.arms and CONTROL not in injection(full, JOINT).interventions


def test_a_file_and_its_overrides(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_data(tasks=TASKS)))
    (tmp_path / "facts.jsonl").write_text('{"text": "a fact"}\n')
    told = data()
    told["train_once"]["interventions"]["facts"]["path"] = "facts.jsonl"
    (tmp_path / "once.yaml").write_text(yaml.safe_dump({**told, "base": "base.yaml"}))
    study = load_train_once(tmp_path / "once.yaml", ["base.budget.steps=60", "train_once.check=null", "seeds=2"])
    assert study.check() is None and study.full().seeds == [0, 1]
    assert recipe(study.full(), JOINT).budget.steps == 60
    assert injection(study.full(), JOINT).interventions["facts"].path == str(tmp_path / "facts.jsonl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_once": {"interventions": {"a": {"path": "x", "metric": "loss"}}}}, "at least 2 items"),
        (
            {"train_once": {"interventions": {n: {"path": "x", "metric": "loss"} for n in ("joint", "b")}}},
            "'joint' is the name of an arm",
        ),
        ({"train_once": {"chekc": None}}, "chekc.*check"),
        (
            {"train_once": {"check": {"control": {"path": "x", "disturbs": "fact"}}}},
            "check.control.disturbs: there is no intervention 'fact'; did you mean 'facts'",
        ),
        ({"base": tiny_data(budget={"flops": 1e12})}, "should be in steps or tokens"),
        (
            {"base": tiny_data(steering=[{"kind": "injection", "interventions": {"a": {"path": "x"}}}])},
            "has an injection already",
        ),
    ],
)
def test_faults_are_told_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make_train_once(data(**changes))


@pytest.mark.parametrize("planted", [False, True])
def test_the_full_runs_wait_for_the_check(planted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["facts", "poison"]
    effects = {(name, name): 0.5 for name in names} | ({("poison", "facts"): -0.3} if planted else {})
    ran: list[str] = []

    def conduct(study: Study, folder: Path, **_: Any) -> dict[str, Any]:
        ran.append(folder.name)
        return made_up(effects)

    monkeypatch.setattr(train_once, "conduct", conduct)
    one = {"path": "builtin:passwords", "metric": "task/facts/loss"}
    study = make_train_once(data(train_once={"interventions": dict.fromkeys(names, one), "solo": True}))
    found = conduct_train_once(study, tmp_path)
    assert json.loads((tmp_path / "train_once.json").read_text()) == found
    assert found["stopped"] == planted and ran == (["check"] if planted else ["check", "full"])
    if planted:
        assert found["check"]["interacting"] == [["poison", "facts"]] and found["full"] is None
        changed = study.train_once.model_copy(update={"check": train_once.Check(stop=False)})
        again = conduct_train_once(study.model_copy(update={"train_once": changed}), tmp_path)
        assert again["full"] is not None and not again["stopped"]
    else:
        assert {name: cell["verdict"] for name, cell in found["full"]["verdicts"].items()} == dict.fromkeys(
            names, "better"
        )
        report = (tmp_path / "report.html").read_text()
        assert "none of the 2 interventions was seen to disturb another" in report
        assert all(cell["agrees"] for cell in found["solo"].values()) and found["cost"]["saved"] is not None
