from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretrain import api
from foretrain.errors import RequestError
from foretrain.forecasts.ledger import entries
from foretrain.run_directory import RunDirectory
from foretrain.schedules.constant import Constant
from tests.forecasts.made import COSINE, WSD, annealed, write_run

LAW = "{kind: lr_annealing, memory: 0.99}"
ENDED = {"name": "now", "status": "done", "validation": {}, "tasks": {}, "cost": {}}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """A run that ended under WSD, and one under a cosine that is half-way."""
    before = write_run(tmp_path / "before", annealed(WSD), WSD, until=1000)
    (before / "result.json").write_text(json.dumps(ENDED))
    return [before, write_run(tmp_path / "now", annealed(COSINE), COSINE, until=500)]


def test_a_running_run_is_predicted_and_scored_when_it_ends(runs: list[Path]) -> None:
    told = api.forecast(runs, law=LAW)
    truth = annealed(COSINE).values[-1]
    assert told["value"] == pytest.approx(truth, rel=1e-3) and told["low"] <= told["value"] <= told["high"]
    assert (told["seen"], told["end"], told["what_if"]) == (500, 1000, None)
    assert told["path"]["steps"][0] == 501 and told["path"]["steps"][-1] == 1000
    assert told["words"].startswith("now ends at step 1,000 with a loss of ")
    page = (runs[1] / "report.html").read_text()
    assert "The last forecast" in page and told["words"] in page
    # Not ended: nothing to score. What is kept is what was said, bit for bit.
    assert [{**entry} for entry in entries(RunDirectory(runs[1]))] == [{**told, "score": None}]
    write_run(runs[1], annealed(COSINE), COSINE, until=1000)
    (runs[1] / "result.json").write_text(json.dumps(ENDED))
    found = api.ledger(runs[1].parent)
    score = found["forecasts"][0]["score"]
    assert score["measured"] == truth and score["error"] == abs(told["value"] - truth) / truth
    assert score["covered"] == (told["low"] <= truth <= told["high"])
    assert found["laws"] == {"lr_annealing": {"scored": 1, "error": score["error"], "covered": float(score["covered"])}}


def test_another_schedule_is_a_what_if(runs: list[Path]) -> None:
    told = api.forecast(runs[:1], law=LAW, schedule=COSINE.model_dump(), to=1000)
    assert told["value"] == pytest.approx(annealed(COSINE).values[-1], rel=1e-3)
    assert told["what_if"]["schedule"]["kind"] == "cosine"
    assert entries(RunDirectory(runs[0]))[0]["score"] is None
    longer = api.forecast(runs[:1], law=LAW, to=2000)
    assert longer["what_if"] == {"schedule": None, "steps": 2000}
    assert longer["end"] == 2000 and longer["value"] < annealed(WSD).values[-1]


def test_what_cannot_be_predicted_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has ended, so there is nothing to predict"):
        api.forecast(runs[:1])
    with pytest.raises(RequestError, match="power_law looks at no learning rates"):
        api.forecast(runs[:1], law="power_law", schedule="cosine")
    with pytest.raises(RequestError, match="takes one or more runs"):
        api.forecast([])
    with pytest.raises(RequestError, match="no forecaster of kind 'lr_anealing'; did you mean 'lr_annealing'"):
        api.forecast(runs, law="lr_anealing")
    stable = write_run(tmp_path / "stable", annealed(WSD), WSD, until=500)
    with pytest.raises(RequestError, match="falls later, and no run named here has seen one fall"):
        api.forecast([stable])
    with pytest.raises(RequestError, match="never changes after its warm-up"):
        api.forecast([stable], law="lr_annealing")
    assert api.forecast([stable], law="power_law")["law"]["kind"] == "power_law"
    flat = write_run(tmp_path / "flat", annealed(Constant(warmup=20)), Constant(warmup=20), until=500)
    assert api.forecast([flat])["law"]["kind"] == "power_law"
    other = write_run(tmp_path / "other", annealed(WSD), WSD, until=400, hashes={"tokenizer": "another"})
    with pytest.raises(RequestError, match="different tokenizers"):
        api.forecast([runs[0], other])
