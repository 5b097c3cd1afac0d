"""Studies of forecasters, over a table and over runs that are trained for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretrain.claims.running import run_claim
from foretrain.errors import RequestError
from foretrain.forecasts.lr_annealing import LrAnnealing
from foretrain.forecasts.power_law import PowerLaw
from foretrain.studies.commands import study as run_study
from foretrain.studies.forecast import make_forecast_study
from foretrain.studies.forecast_scores import attempt
from tests.forecasts.made import COSINE, MEMORY, WSD, annealed, rates
from tests.tiny import tiny_data


def forecast_data(folder: Path, **changes: Any) -> dict[str, Any]:
    """Three repetitions of a WSD and a cosine curve of one law, with noise of their own."""
    lines = ["group,plan,step,lr,loss"]
    for group in range(3):
        for name, schedule in (("wsd", WSD), ("cosine", COSINE)):
            curve = annealed(schedule)
            noisy = curve.values * (1 + 5e-4 * np.random.default_rng(group).standard_normal(curve.steps.size))
            eta = rates(schedule)[curve.steps - 1]
            lines += [f"g{group},{name},{s},{e:.17g},{v:.17g}" for s, e, v in zip(curve.steps, eta, noisy, strict=True)]
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return {
        "name": "laws",
        "forecast": {
            "table": {"path": "t.csv", "run": ["group", "plan"], "step": "step", "lr": "lr"},
            "fit": ["wsd"],
            "predict": ["cosine"],
            "forecasters": {
                "steps": "power_law",
                "annealing": {"kind": "lr_annealing", "memory": MEMORY},
                "partial": {"forecaster": "power_law", "fit": [], "seen": 0.1},
            },
        },
        "metrics": {"error": {"difference": 1e-3}, "end": {"judged": False}},
        **changes,
    }


def test_forecasters_are_judged_by_their_errors(tmp_path: Path) -> None:
    study = make_forecast_study(forecast_data(tmp_path), tmp_path)
    found = run_study(study, out=tmp_path / "out", quiet=True)
    assert json.loads((tmp_path / "out" / "study.json").read_text()) == json.loads(json.dumps(found))
    assert found["seeds"] == [0, 1, 2] and list(found["arms"]) == ["steps", "annealing", "partial"]
    rows = {(row["arm"], row["metric"]): row for row in found["contrasts"]}
    row = rows["annealing", "error"]
    assert row["verdict"] == "better" and row["against"] == "steps"
    assert rows["annealing", "end"]["verdict"] is None  # reported, and not judged
    # The figures are those of the curves themselves: fitted to one, measured on the other.
    curves = study.tabled()[1]
    told = attempt(LrAnnealing(memory=MEMORY), [curves["wsd"]], [curves["cosine"]], 0.0, 0.1).figures
    assert found["arms"]["annealing"]["metrics"]["error"]["values"]["1"] == told["error"] < 1e-3
    assert (tmp_path / "out" / "report.html").is_file()


def test_figures_of_an_attempt() -> None:
    curve = annealed(WSD)
    others = [replace(curve, name=str(place), values=curve.values + place / 10) for place in range(3)]
    found = attempt(PowerLaw(), others, others, 0.0, 0.5).figures
    assert found["rank"] == 0.0  # one answer for all of them is no order
    assert 0 <= found["coverage"] <= 0.9 and found["error"] > 0 and np.isfinite(found["nll"])
    assert set(attempt(PowerLaw(), others, others, 0.0, 0.5, ["error"]).figures) == {"error", "end", "rank"}
    lost = attempt(LrAnnealing(), [replace(curve, rates=None)], others, 0.0, 0.5)
    assert not lost.figures and "learning rates are not known" in (lost.failed or "")


def test_runs_are_trained_and_only_those_that_are_needed(tmp_path: Path) -> None:
    data = {
        "name": "trained",
        "base": tiny_data(budget={"steps": 24}, evaluation={"every": 0.5, "tokens": 512}),
        "forecast": {
            "runs": {"plain": {"schedule.kind": "wsd"}, "other": {"optimizer.lr": 2e-3}, "unused": {}},
            "fit": ["plain"],
            "predict": ["other"],
            "forecasters": {"last": "last_value", "law": "power_law"},
        },
        "seeds": 1,
        "executor": "inline",
    }
    found = run_study(make_forecast_study(data, tmp_path), out=tmp_path / "out", quiet=True)
    assert sorted(path.name for path in (tmp_path / "out" / "runs" / "trials").iterdir()) == ["other", "plain"]
    assert found["arms"]["law"]["flops"] > 0 and found["arms"]["law"]["metrics"]["error"]["mean"] < 1
    assert not found["arms"]["law"]["failed"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"forecast.predict": ["wsd"]}, "it would learn from wsd, which it is to predict"),
        ({"forecast.after": 0.05}, "judge only what none of them has seen"),
        ({"forecast.runs": {"a": {}}}, "give either `runs`"),
        ({"forecast.forecasters.partial.seen": 0}, "it learns from nothing"),
        ({"forecast.forecasters.steps": "power_lw"}, "did you mean 'power_law'"),
        ({"metrics": {"erorr": {}}}, "did you mean 'error'"),
        ({"contrasts": [["annealing", "step"]]}, "no forecaster 'step'"),
        ({"forecast.table": None, "forecast.runs": {"wsd": {}, "cosine": {}}}, "the runs change a recipe; give it"),
    ],
)
def test_faults_of_the_file(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    with pytest.raises(RequestError, match=said):
        make_forecast_study(forecast_data(tmp_path), tmp_path, overrides=overrides)


def test_curves_that_the_table_lacks(tmp_path: Path) -> None:
    study = make_forecast_study(forecast_data(tmp_path), tmp_path, overrides=["forecast.predict=[cosin]"])
    with pytest.raises(RequestError, match="no curve 'cosin'; did you mean 'cosine'"):
        run_study(study, out=tmp_path / "out", quiet=True)


def test_a_claim_may_be_a_study_of_forecasters(tmp_path: Path) -> None:
    home = tmp_path / "claims" / "law"
    home.mkdir(parents=True)
    claim = {
        "paper": {"title": "A law", "year": 2024},
        "claim": "It predicts.",
        "expects": [{"arm": "annealing", "metric": "error", "direction": "lower"}],
        "refuted_if": "It does not.",
        "scale": {"shrunk": "All.", "survives": "It is a law."},
        "study": forecast_data(home),
        "scales": {"smoke": {"seeds": 2}},
    }
    (home / "claim.yaml").write_text(json.dumps(claim))
    result = run_claim("law", folder=home.parent, out=tmp_path / "out", quiet=True)
    assert result["verdict"] == "reproduced"
    assert run_claim("law", scale="smoke", folder=home.parent, quiet=True)["verdict"] == "undecided"
    claim["expects"] = [{"arm": "anealing", "metric": "eror", "direction": "lower"}]
    (home / "claim.yaml").write_text(json.dumps(claim))
    with pytest.raises(RequestError, match=r"(?s)no arm 'anealing'.*no metric 'eror'"):
        run_claim("law", folder=home.parent, quiet=True)
