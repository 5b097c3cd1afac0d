"""The folder of a merge: it reads like a run's, says what it is, is made once, and made again where it was cut off."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import foretrain as ft
from foretrain import faults
from foretrain.checks import check_part
from foretrain.errors import RequestError, RunError
from foretrain.exporting import load_run_model
from foretrain.merging import evaluating
from foretrain.merging.average import Average
from foretrain.merging.base import Merge, Merged
from foretrain.merging.ensemble import Ensemble
from foretrain.merging.evaluating import evaluate_merge
from foretrain.parts import Facts
from foretrain.run_directory import RunDirectory
from tests.merging.conftest import folder_bytes
from tests.tiny import CONTEXT, tiny_recipe


def test_of_one_checkpoint_the_figures_are_those_of_the_run(runs: list[RunDirectory], tmp_path: Path) -> None:
    found, single = evaluate_merge(Average(last=1), runs[:1], tmp_path / "m"), runs[0].result() or {}
    assert found["validation"] == single["validation"] and found["tasks"] == single["tasks"]
    assert {key: value for key, value in found["cost"].items() if key != "inference"} == single["cost"]


def test_runs_of_phases_are_judged_by_the_last_one(tmp_path: Path) -> None:
    model = {"kind": "eurobert", "layers": 1, "width": 16, "heads": 2, "feedforward": 24, "context": CONTEXT}
    phases = {"causal": {"objective": "causal_lm"}, "masked": {"objective": "masked_lm"}}
    both = {"objective": {"kind": "phases", "phases": phases}, "model": model, "precision": "fp32"}
    run = ft.run(tiny_recipe(budget={"steps": 4}, **both), out=tmp_path / "run", quiet=True)
    found, single = evaluate_merge(Average(last=1), [run, run], tmp_path / "m"), run.result() or {}
    assert found["validation"] == pytest.approx(single["validation"], rel=1e-6)


def test_an_average_is_a_run_that_transformers_loads(runs: list[RunDirectory], tmp_path: Path) -> None:
    before = [folder_bytes(run.path) for run in runs]
    result = evaluate_merge(Average(last=2), runs, tmp_path / "m")
    run = RunDirectory.open(tmp_path / "m")
    assert run.status() == "done" and run.result() == result
    assert run.final()["validation/prose/loss"] == result["validation"]["prose/loss"]
    assert run.final()["task/sums/loss"] == result["tasks"]["sums"]["loss"]["value"]
    costs = [each.cost() for each in runs]
    assert run.cost()["flops"] == sum(cost["flops"] or 0 for cost in costs) > 0
    assert run.cost()["steps"] == 16 and result["cost"]["inference"] == 1
    assert run.cost()["peak_memory"] == max(cost["peak_memory"] or 0 for cost in costs)
    plan = run.plan()
    assert plan["merge"] == {"kind": "average", "last": 2}
    assert [member["run"] for member in plan["members"]] == [str(each.path.resolve()) for each in runs]
    assert [member["seed"] for member in plan["members"]] == [0, 1]
    model = AutoModelForCausalLM.from_pretrained(run.model_path)
    expected = Average(last=2).merge(runs).exported
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(a, b)
    assert AutoTokenizer.from_pretrained(run.model_path).eos_token_id == model.config.eos_token_id
    assert "## Merge\n\nThe average of:\n\n- tiny, 8 steps" in (run.model_path / "README.md").read_text()
    assert ft.evaluate(run)["sums"]["loss"] == pytest.approx(result["tasks"]["sums"]["loss"], rel=1e-6)
    assert torch.equal(next(Ensemble().merge([run]).model.parameters()), next(load_run_model(run)[0].parameters())), (
        "an average can be a member of another merge"
    )
    assert before == [folder_bytes(each.path) for each in runs], "the members are left as they were"


def test_an_ensemble_says_what_it_costs_at_use(runs: list[RunDirectory], tmp_path: Path) -> None:
    result = evaluate_merge(Ensemble(), runs, tmp_path / "m")
    run = RunDirectory.open(tmp_path / "m")
    assert result["cost"]["inference"] == 2 and not run.model_path.exists()
    assert run.plan()["parameters"] == 2 * runs[0].plan()["parameters"]
    assert result["validation"]["loss"] < max((each.result() or {})["validation"]["loss"] for each in runs)
    assert ft.report(run).is_file()


def test_it_is_made_once_and_again_where_it_was_cut_off(
    runs: list[RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, merge = tmp_path / "m", Average(last=2)
    result = evaluate_merge(merge, runs, folder)
    whole = {name: data for name, data in folder_bytes(folder).items() if name != ".lock"}

    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("it is made already")

    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "make_plan", refuse)
        assert evaluate_merge(merge, runs, folder) == result
        with pytest.raises(AssertionError):
            evaluate_merge(merge, runs[:1], folder)  # other members
    assert not (folder / "result.json").exists()
    for writes in (0, 2, 4):
        left = [writes]

        def cut(place: str, left: list[int] = left) -> None:
            left[0] -= place == "write"
            if left[0] < 0:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(faults, "reach", cut)
            with pytest.raises(RunError, match="disk is full"):
                evaluate_merge(merge, runs, folder)
        assert RunDirectory(folder).status() != "done"
        assert evaluate_merge(merge, runs, folder) == result
        assert {name: data for name, data in folder_bytes(folder).items() if name != ".lock"} == whole
        evaluate_merge(Average(last=1), runs, folder)  # another merge takes its place


def test_folders_that_hold_a_run_are_left_alone(runs: list[RunDirectory], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds a run; name another folder"):
        evaluate_merge(Average(last=1), runs, runs[0].path)
    assert runs[0].status() == "done"


def test_text_that_changed_since_is_refused(runs: list[RunDirectory], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0].path, copy)
    plan = json.loads((copy / "plan.json").read_text())
    plan["hashes"]["tokens"]["sums"]["validation"] = "0"
    (copy / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(RequestError, match="The validation split of domain 'sums' changed since"):
        evaluate_merge(Average(last=1), [RunDirectory(copy)], tmp_path / "m")


def test_the_checks_find_a_merge_that_changes_its_members() -> None:
    class Scribbling(Merge):
        """Leaves a mark."""

        kind: Literal["scribbling"] = "scribbling"
        facts: ClassVar[Facts] = Facts(answers="what is the model? never mind")

        def merge(self, runs: Sequence[RunDirectory]) -> Merged:
            (runs[0].path / "mark").write_text("here")
            return Ensemble().merge(runs)

    class Wavering(Scribbling):
        """Gives another model each time."""

        kind: Literal["wavering"] = "wavering"  # type: ignore[assignment]

        def merge(self, runs: Sequence[RunDirectory]) -> Merged:
            merged = Ensemble().merge(runs)
            with torch.no_grad():
                for parameter in merged.model.parameters():
                    parameter.add_(1e-3 * time.perf_counter() % 1)
            return merged

    with pytest.raises(AssertionError, match="merge 'scribbling' changes its members"):
        check_part(Scribbling())
    with pytest.raises(AssertionError, match="merge 'wavering': merging twice gives other figures"):
        check_part(Wavering())
