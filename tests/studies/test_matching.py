"""What arms are given, and what a study says where they differ in more than their settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from foretrain.sizing import FAR
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.studies.commands import noise
from foretrain.studies.conducting import conduct
from foretrain.studies.noise import read_noise
from foretrain.studies.planning import Products, plan_jobs
from foretrain.studies.study import Study
from foretrain.studies.trial import plan_run
from tests.studies.tiny_study import study_data, tiny_study
from tests.tiny import tiny_data


class TwiceInTheSecondHalf(Steering):
    """Takes the gradient twice in the second half of the run: which steps are dear depends on how many there are."""

    kind: Literal["twice_in_the_second_half"] = "twice_in_the_second_half"
    _total: int = 0
    _step: int = 0

    def setup(self, context: Any) -> None:
        self._total = context.total_steps

    def step_kind(self, step: int) -> str:
        self._step = step  # asked of each step before it is taken
        return "twice" if step >= self._total / 2 else ""

    def gradient(self, of: GradientOf, group: Any = None, at: Any = None) -> Gradient:
        if self._step >= self._total / 2:
            of(group, at)
        return of(group, at)


class TwiceFromLateOn(TwiceInTheSecondHalf):
    """The same from a step on that lies beyond those among which kinds are looked for at first."""

    kind: Literal["twice_from_late_on"] = "twice_from_late_on"  # type: ignore[assignment]

    def setup(self, context: Any) -> None:
        self._total = 2 * (FAR + 10)


def amounts(study: Study, arm: str, amount: float | None) -> list[float | None]:
    return [job.payload["amount"] for job in plan_jobs(study, Products(study), arm, (), amount, 0)]


class TestSharesOfTheBudget:
    many: ClassVar[dict[str, Any]] = {"members": [{}, {}], "merge": "ensemble"}

    def test_members_share_what_is_matched(self) -> None:
        assert amounts(tiny_study(arms={"plain": {}, "many": self.many}), "many", 100.0) == [50.0, 50.0]

    def test_members_of_the_baseline_share_its_own(self) -> None:
        study = tiny_study(arms={"many": self.many, "plain": {}})
        assert amounts(study, "many", None) == [4, 4]  # of the base's 8 steps
        assert amounts(study, "plain", None) == [None]

    def test_a_budget_of_its_own_is_kept_but_for_the_baseline(self) -> None:
        study = tiny_study(arms={"plain": {"budget.steps": 6}, "other": {"budget.steps": 6}})
        assert amounts(study, "other", 100.0) == [None]
        assert amounts(study, "plain", None) == [None]
        assert amounts(study, "plain", 100.0) == [100.0]  # as a control it is given more than it says


def test_which_steps_are_dear_depends_on_how_many_there_are(tmp_path: Path) -> None:
    recipe = {**tiny_data(), "steering": ["twice_in_the_second_half"]}
    plain = plan_run({"recipe": tiny_data(), "start": None, "unit": "flops", "amount": None})
    found = plan_run({"recipe": recipe, "start": None, "unit": "flops", "amount": None})
    assert found["step_flops"] > 1.8 * plain["step_flops"]
    assert found["flops"] == 4 * plain["step_flops"] + 4 * found["step_flops"]
    matched = plan_run({"recipe": recipe, "start": None, "unit": "flops", "amount": found["flops"]})
    assert 8 <= matched["steps"] <= 9  # were it as in a long run, all were cheap, and it would be 12
    assert abs(matched["flops"] - found["flops"]) <= found["step_flops"] / 2
    # A run that is given the budget itself finds the same.
    run = ft.run(make_recipe({**recipe, "budget": {"flops": found["flops"]}}), out=tmp_path / "run", quiet=True)
    assert run.result()["cost"]["steps"] == matched["steps"]


def test_a_kind_of_step_that_begins_late_is_planned_with() -> None:
    recipe = {**tiny_data(), "steering": ["twice_from_late_on"]}
    step = plan_run({"recipe": tiny_data(), "start": None, "unit": "flops", "amount": None})["step_flops"]
    found = plan_run({"recipe": recipe, "start": None, "unit": "flops", "amount": (FAR + 10 + 2 * 20) * step})
    assert found["step_flops"] > 1.8 * step
    assert found["steps"] == pytest.approx(FAR + 10 + 20, abs=1)  # were all cheap, it would be 20 more


def test_the_baseline_with_one_off_costs_has_more_than_its_own_budget(tmp_path: Path) -> None:
    arms: dict[str, Any] = {"plain": {"budget.steps": 2}, "scored": {"optimizer.lr": 1e-5}}
    step = plan_run({"recipe": tiny_study().base, "start": None, "unit": "flops", "amount": None})["step_flops"]
    arms["scored"] = {"set": arms["scored"], "one_off": 3 * step}
    found = conduct(tiny_study(arms=arms, seeds=1), tmp_path, report=False)
    assert found["arms"]["scored"]["steps"] == 2 and found["arms"]["scored"]["one_off_flops"] == 3 * step
    assert found["arms"]["plain-given-scored"]["steps"] == 5
    # Other one-off costs are another control: said before anything is trained, and only told of its trial.
    arms["scored"] = {**arms["scored"], "one_off": 4 * step}
    with pytest.raises(RequestError, match=r"plain-given-scored.*budget\.steps was 5 and is 6"):
        conduct(tiny_study(arms=arms, seeds=2), tmp_path, report=False)
    assert not (tmp_path / "trials" / "scored" / "seed-1").exists()


def test_another_merge_is_made_anew(tmp_path: Path) -> None:
    base = {**tiny_study().base, "budget": {"steps": 4}, "checkpoint": {"every": 1, "keep": 3}}

    def of_last(count: int) -> dict[str, Any]:
        arms = {"plain": {}, "soup": {"merge": {"kind": "average", "last": count}}}
        return conduct(tiny_study(arms=arms, base=base, seeds=1), tmp_path, report=False)["arms"]["soup"]

    two = of_last(2)
    assert of_last(2) == two
    three = of_last(3)
    assert three["metrics"]["validation/loss"]["mean"] != two["metrics"]["validation/loss"]["mean"]
    assert RunDirectory(tmp_path / "trials" / "soup" / "seed-0" / "merged").plan()["merge"]["last"] == 3


def test_the_rule_that_stops_reads_the_figure_where_a_metric_is_when_it_was_reached(tmp_path: Path) -> None:
    arms = {"plain": {}, "fast": {"optimizer.lr": 0.02}, "a": {"optimizer.lr": 1e-6}, "b": {"optimizer.lr": 1e-5}}
    metrics = {"speed": {"figure": "validation/loss", "at": "reached", "difference": 0.1}}
    stopping = {"kind": "successive_halving", "at": [0.5]}
    found = conduct(tiny_study(arms=arms, metrics=metrics, stopping=stopping, seeds=1), tmp_path, report=False)
    assert [name for name in arms if found["arms"][name]["stopped"]] == ["a", "b"]
    assert found["metrics"]["speed"]["direction"] == "lower"
    stopped = next(row for row in found["contrasts"] if row["arm"] == "a")
    assert stopped["difference"] is None and stopped["verdict"] == "undecided"  # it never reached it
    assert "gave no figure" in stopped["words"]


def test_what_ran_to_its_end_before_saved_nothing(tmp_path: Path) -> None:
    arms = {"plain": {}, "a": {"optimizer.lr": 1e-6}, "b": {"optimizer.lr": 1e-5}}
    base = {**tiny_study().base, "budget": {"steps": 4}}
    conduct(tiny_study(arms=arms, base=base, seeds=1), tmp_path, report=False)
    found = conduct(tiny_study(arms=arms, base=base, seeds=1, stopping="successive_halving"), tmp_path, report=False)
    assert found["arms"]["a"]["stopped"] and found["totals"]["saved_flops"] == 0


def test_trials_that_cost_other_than_planned_are_told_of(tmp_path: Path) -> None:
    study = tiny_study(arms={"plain": {}, "slow": {"optimizer.lr": 1e-5}}, seeds=1)
    found = conduct(study, tmp_path, report=False)
    assert found["notes"] == []
    result = tmp_path / "trials" / "slow" / "seed-0" / "result.json"
    data = json.loads(result.read_text())
    data["cost"]["flops"] *= 2
    result.write_text(json.dumps(data))
    notes = conduct(study, tmp_path, report=False)["notes"]
    assert len(notes) == 1 and notes[0].startswith("slow was matched by") and "not at an equal cost" in notes[0]


class TestErrorsThatAreKept:
    def test_a_failed_trial_is_told_without_places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(payload: Any) -> Any:
            raise OSError(f"no room in {tmp_path.resolve()}/trials (see logs/worker-3.log)")

        monkeypatch.setattr("foretrain.studies.trial.run_trial", broken)
        found = conduct(tiny_study(arms={"plain": {}}, seeds=1), tmp_path, report=False)
        error = found["arms"]["plain"]["trials"][0]["error"]
        assert "no room in trials (see logs/worker-K.log)" in error
        assert str(tmp_path) not in error


class TestNoiseFromElsewhere:
    @pytest.mark.parametrize("text", ["{", "[]", '{"metrics": {}}'])
    def test_a_file_that_is_no_noise_study(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "noise.json").write_text(text)
        with pytest.raises(RequestError, match=r"noise: .* is not what"):
            read_noise(tiny_study(noise=str(tmp_path)))

    def test_a_baseline_that_begins_elsewhere(self, tmp_path: Path) -> None:
        data = study_data(arms={"plain": {}}, seeds=2, base={**study_data()["base"], "budget": {"steps": 1}})
        (tmp_path / "study.yaml").write_text(json.dumps(data))
        noise(tmp_path / "study.yaml", out=tmp_path / "noise", seeds=2, quiet=True)
        data["arms"] = {"plain": {"start": "before"}}
        study = tiny_study(**{**data, "products": {"before": {}}, "noise": str(tmp_path / "noise")})
        with pytest.raises(RequestError, match="arm start was None there and is 'before' here"):
            read_noise(study)
