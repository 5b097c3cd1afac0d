from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import RequestError
from foretrain.run_directory import RunDirectory
from foretrain.studies.conducting import conduct
from foretrain.studies.study import Study
from tests.studies.tiny_study import tiny_study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    study = tiny_study()
    return study, folder, conduct(study, folder)


class TestWhatIsWritten:
    def test_study_json_is_what_was_returned(self, done: tuple[Study, Path, dict[str, Any]]) -> None:
        _, folder, found = done
        assert json.loads((folder / "study.json").read_text()) == json.loads(json.dumps(found))
        assert (folder / "report.html").is_file()

    def test_every_arm_has_figures_and_costs(self, done: tuple[Study, Path, dict[str, Any]]) -> None:
        _, _, found = done
        assert list(found["arms"]) == ["plain", "slow", "wsd"]
        for arm in found["arms"].values():
            assert {"steps", "tokens", "flops", "seconds", "peak_memory"} <= arm.keys()
            assert arm["steps"] == 8 and arm["peak_memory"] > 0
            assert arm["metrics"]["validation/loss"]["seeds"] == 2

    def test_figures_are_those_of_the_runs(self, done: tuple[Study, Path, dict[str, Any]]) -> None:
        _, folder, found = done
        values = found["arms"]["slow"]["metrics"]["validation/loss"]["values"]
        for seed in (0, 1):
            run = RunDirectory.open(folder / "trials" / "slow" / f"seed-{seed}")
            assert values[str(seed)] == run.final()["validation/loss"]
        plain = found["arms"]["plain"]["metrics"]["validation/loss"]["values"]
        difference = sum(values[seed] - plain[seed] for seed in values) / 2
        assert found["arms"]["slow"]["metrics"]["validation/loss"]["difference"] == pytest.approx(difference)
        assert difference > 0.1  # a rate a thousand times lower learns less

    def test_changes_name_what_an_arm_is(self, done: tuple[Study, Path, dict[str, Any]]) -> None:
        _, _, found = done
        assert found["arms"]["plain"]["changes"] == []
        assert found["arms"]["slow"]["changes"] == [["optimizer.lr", 0.01, 1e-5]]
        assert ["schedule.kind", "cosine", "wsd"] in found["arms"]["wsd"]["changes"]

    def test_arms_share_their_data_and_first_weights(self, done: tuple[Study, Path, dict[str, Any]]) -> None:
        _, folder, _ = done
        first = [RunDirectory(folder / "trials" / arm / "seed-1").metrics() for arm in ("plain", "slow", "wsd")]
        assert len({row[1]["loss"] for row in first}) == 1
        other = RunDirectory(folder / "trials" / "plain" / "seed-0").metrics()
        assert other[1]["loss"] != first[0][1]["loss"]

    def test_again_it_is_the_same_and_trains_nothing(self, done: tuple[Study, Path, dict[str, Any]]) -> None:
        study, folder, found = done
        before = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*/metrics.jsonl")}
        assert len(before) == 6
        assert conduct(study, folder) == found
        assert before == {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*/metrics.jsonl")}


def refused(folder: Path, **changes: Any) -> str:
    with pytest.raises(RequestError) as error:
        conduct(tiny_study(**changes), folder)
    assert not list(folder.glob("trials/*/*/metrics.jsonl"))
    return str(error.value)


class TestRefusedBeforeTraining:
    def test_a_figure_that_nothing_produces(self, tmp_path: Path) -> None:
        text = refused(tmp_path, metrics={"validation/prosa/loss": {}})
        assert "did you mean 'validation/prose/loss'" in text

    def test_arms_that_spend_more(self, tmp_path: Path) -> None:
        text = refused(tmp_path, arms={"plain": {}, "long": {"budget.steps": 12}})
        assert "do not match" in text and "'long'" in text

    def test_losses_per_token_of_two_tokenizers(self, tmp_path: Path) -> None:
        other = {"tokenizer": {"kind": "bpe", "vocabulary": 400}}
        assert "tokenizer" in refused(tmp_path, arms={"plain": {}, "bpe": other})

    def test_other_validation_text(self, tmp_path: Path) -> None:
        other = {"corpus.prose.options": {"people": 150, "seed": 5}}
        assert "text it is measured on" in refused(tmp_path, arms={"plain": {}, "other": other})

    def test_a_curve_of_a_task_that_is_measured_once(self, tmp_path: Path) -> None:
        items = tmp_path / "items.jsonl"
        items.write_text("\n".join(json.dumps({"text": f"some words {n}"}) for n in range(4)))
        base = {**tiny_study().base, "tasks": {"words": {"kind": "completion_loss", "path": str(items)}}}
        text = refused(tmp_path, base=base, metrics={"task/words/loss": {"at": "best"}})
        assert "every" in text

    def test_two_studies_in_one_directory(self, tmp_path: Path) -> None:
        conduct(tiny_study(seeds=1, arms={"plain": {}}), tmp_path, report=False)
        with pytest.raises(RequestError, match="another study"):
            conduct(tiny_study(seeds=1, arms={"plain": {"optimizer.lr": 0.02}}), tmp_path)


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    found = conduct(tiny_study(seeds=1, arms={"plain": {}, "slow": {"optimizer.lr": 1e-5}}), tmp_path, report=False)
    assert [row["verdict"] for row in found["contrasts"]] == ["undecided"]


def test_more_seeds_only_run_what_is_new(tmp_path: Path) -> None:
    arms = {"plain": {}, "slow": {"optimizer.lr": 1e-5}}
    conduct(tiny_study(arms=arms, seeds=1), tmp_path, report=False)
    before = (tmp_path / "trials" / "slow" / "seed-0" / "metrics.jsonl").stat().st_mtime_ns
    found = conduct(tiny_study(arms=arms, seeds=2), tmp_path, report=False)
    assert found["arms"]["slow"]["metrics"]["validation/loss"]["seeds"] == 2
    assert (tmp_path / "trials" / "slow" / "seed-0" / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_failed_trial_is_shown_and_never_better(tmp_path: Path) -> None:
    arms = {"plain": {}, "wild": {"optimizer.lr": 1e30, "stability.clip": None, "stability.patience": 2}}
    found = conduct(tiny_study(arms=arms), tmp_path, report=False)
    wild = found["arms"]["wild"]
    assert wild["failed"] == 2
    assert all(trial["status"] == "failed" and trial["error"] for trial in wild["trials"])
    assert found["contrasts"][0]["verdict"] == "undecided"


def test_larger_models_get_fewer_steps(tmp_path: Path) -> None:
    arms = {"plain": {}, "wide": {"model.width": 64, "model.feedforward": 128}}
    base = {**tiny_study().base, "budget": {"steps": 60}, "evaluation": {"every": 1000, "tokens": 512}}
    found = conduct(tiny_study(arms=arms, base=base, seeds=1), tmp_path, report=False)
    plain, wide = found["arms"]["plain"], found["arms"]["wide"]
    assert wide["steps"] < 40
    step = wide["flops"] / wide["steps"]
    assert abs(wide["flops"] - plain["flops"]) <= step / 2
    plan = RunDirectory(tmp_path / "trials" / "wide" / "seed-0").plan()
    assert plan["total_steps"] == wide["steps"]  # its schedule ends there


def test_losing_arms_are_stopped_and_the_winner_is_the_same(tmp_path: Path) -> None:
    rates = {"plain": 0.01, "a": 0.02, "b": 1e-3, "c": 1e-4, "d": 1e-5, "e": 1e-6}
    arms = {name: {"optimizer.lr": rate} for name, rate in rates.items()}
    full = conduct(tiny_study(arms=arms, seeds=1), tmp_path / "full", report=False)
    short = conduct(tiny_study(arms=arms, seeds=1, stopping="successive_halving"), tmp_path / "short", report=False)

    def mean(found: dict[str, Any], arm: str) -> float:
        return float(found["arms"][arm]["metrics"]["validation/loss"]["mean"])

    ended = [arm for arm in arms if short["arms"][arm]["stopped"] is None]
    assert min(arms, key=lambda arm: mean(full, arm)) == min(ended, key=lambda arm: mean(short, arm))
    assert short["totals"]["flops"] < 0.6 * full["totals"]["flops"]
    assert short["totals"]["flops"] + short["totals"]["saved_flops"] == pytest.approx(full["totals"]["flops"])
    for arm in ended:  # pausing changes nothing
        assert mean(full, arm) == mean(short, arm)
    stopped = short["arms"]["e"]
    assert stopped["stopped"] == 0.25 and stopped["steps"] == 2
    row = next(row for row in short["contrasts"] if row["arm"] == "e")
    assert row["share"] == 0.25 and row["difference"] > 0


def test_tuning_looks_at_other_data_and_seeds(tmp_path: Path) -> None:
    arms = {"plain": {}, "wsd": {"schedule": {"kind": "wsd", "decay": 0.5}}}
    found = conduct(tiny_study(arms=arms, seeds=1, tune={"optimizer.lr": [1e-6, 1e-2]}), tmp_path, report=False)
    for arm in arms:
        assert found["arms"][arm]["tuned"] == {"optimizer.lr": 1e-2}
        assert found["arms"][arm]["tuning_flops"] == pytest.approx(2 * found["arms"][arm]["flops"])
    trial = RunDirectory(tmp_path / "tuning" / "plain" / "choice-0" / "seed-1")
    assert trial.recipe()["seed"] == 1 and trial.recipe()["evaluation"]["split"] == "steer"
    assert any("steer split" in note for note in found["notes"])


def test_tuning_needs_a_steer_split(tmp_path: Path) -> None:
    corpus = {"prose": {**tiny_study().base["corpus"]["prose"], "steer": 0}}
    base = {**tiny_study().base, "corpus": corpus}
    assert "steer: 0.05" in refused(tmp_path, base=base, tune={"optimizer.lr": [1e-3, 1e-2]})


def test_the_share_at_which_an_arm_is_as_good(tmp_path: Path) -> None:
    metrics = {"loss-at-end": {"figure": "validation/loss"}, "speed": {"figure": "validation/loss", "at": "reached"}}
    base = {**tiny_study().base, "budget": {"steps": 16}, "evaluation": {"every": 2, "tokens": 2048}}
    arms = {"plain": {}, "slow": {"optimizer.lr": 1e-5}}
    found = conduct(tiny_study(arms=arms, base=base, metrics=metrics, seeds=1), tmp_path, report=False)
    assert found["arms"]["plain"]["metrics"]["speed"]["mean"] <= 1
    assert found["arms"]["slow"]["metrics"]["speed"]["mean"] is None  # never


def test_products_are_made_once_and_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
    arms = {"plain": {}, "continued": {"start": "before"}}
    products = {"before": {"set": {"seed": 9, "budget.steps": 4}}}
    found = conduct(tiny_study(arms=arms, products=products, seeds=1), tmp_path / "a", report=False)
    assert found["products"]["before"]["steps"] == 4
    continued = found["arms"]["continued"]
    assert continued["one_off_flops"] == found["products"]["before"]["flops"]
    control = found["arms"]["plain-given-continued"]
    assert control["steps"] == 12 and control["control_for"] == "continued"
    assert [(row["arm"], row["against"]) for row in found["second"]] == [("continued", "plain-given-continued")]
    plan = RunDirectory(tmp_path / "a" / "trials" / "continued" / "seed-0").plan()
    assert plan["parent"]["step"] == 4
    made = list((tmp_path / "cache" / "products").iterdir())
    again = conduct(tiny_study(arms=arms, products=products, seeds=1), tmp_path / "b", report=False)
    assert again["arms"]["continued"]["metrics"] == continued["metrics"]
    assert list((tmp_path / "cache" / "products").iterdir()) == made


def test_products_of_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
    arms = {"on": {"start": "half"}, "hot": {"start": "half", "set": {"optimizer.lr": 0.05}}}
    products = {"half": {"until": 0.5, "per_seed": True}}
    found = conduct(tiny_study(arms=arms, products=products), tmp_path / "a", report=False)
    parents = [RunDirectory(tmp_path / "a" / "trials" / "on" / f"seed-{seed}").plan()["parent"] for seed in (0, 1)]
    assert [parent["step"] for parent in parents] == [4, 4]
    assert parents[0]["run"] != parents[1]["run"]
    assert found["arms"]["hot"]["one_off_flops"] == 0  # the baseline begins there too


def test_members_share_the_budget_and_are_merged(tmp_path: Path) -> None:
    arms = {"plain": {}, "pair": {"members": [{}, {}], "merge": "ensemble"}}
    found = conduct(tiny_study(arms=arms, seeds=1), tmp_path, report=False)
    pair = found["arms"]["pair"]
    assert pair["steps"] == 8 and pair["flops"] == found["arms"]["plain"]["flops"]
    members = [RunDirectory(tmp_path / "trials" / "pair" / "seed-0" / f"member-{n}") for n in (0, 1)]
    assert [member.cost()["steps"] for member in members] == [4, 4]
    mean = sum(member.final()["validation/loss"] for member in members) / 2
    assert pair["metrics"]["validation/loss"]["values"]["0"] < mean  # an ensemble beats its members' mean
