"""The report of many interventions in one run: what it says, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foretrain.reports.study_words import difference
from foretrain.reports.train_once_report import matrix, summary, train_once_report, write_report
from foretrain.studies.interference import CONTROL, agreement, answers, cost, interference
from tests.reports.pages import Page
from tests.studies.test_interference import NAMES, OWN, made_up


def once(effects: dict[tuple[str, str], float], **changes: Any) -> dict[str, Any]:
    study = made_up({**OWN, **effects})
    study["arms"][CONTROL] = made_up({("sums", "facts"): -0.3}, seed=3)["arms"]["sums"]
    return {
        "name": "several",
        "interventions": NAMES,
        "check": interference(study, NAMES, "facts"),
        "stopped": False,
        "full": answers(study, NAMES, "validation/loss"),
        "solo": agreement(study, NAMES),
        "cost": cost(study, study, NAMES),
        **changes,
    }


def test_the_matrix_shows_every_cell_and_its_size() -> None:
    told = once({("poison", "facts"): -0.2})
    rows = matrix(told["check"])
    assert [row["name"] for row in rows[-2:]] == ["all together", "control, against facts"]
    for j, acting in enumerate(NAMES):
        for i, read in enumerate(NAMES):
            cell, shown = told["check"]["matrix"][acting][read], rows[j]["cells"][i]
            assert shown["value"] == difference(cell) and shown["own"] == (acting == read)
            assert shown["detail"] == cell["verdict"] and shown["title"] == cell["words"]
    facts, poison = NAMES.index("facts"), NAMES.index("poison")
    assert rows[facts]["cells"][facts]["heat"] == 1
    assert rows[poison]["cells"][facts]["heat"] == pytest.approx(0.4, abs=0.05)
    page = Page(train_once_report(told))
    heats = [attributes["style"] for tag, attributes in page.elements if tag == "td" and "style" in attributes]
    assert heats == [f"--heat: {cell['heat']}" for row in rows for cell in row["cells"]]


def test_what_it_says() -> None:
    calm, planted = once({}), once({("poison", "facts"): -0.2}, full=None, solo=None, stopped=True)
    assert "none of the 4 interventions was seen to disturb another" in summary(calm)
    assert "4 of 4 interventions have an effect" in summary(calm)
    assert "poison disturbs facts" in summary(planted) and "cannot share a run" in summary(planted)
    unseen = {**calm["check"], "control": {**calm["check"]["control"], "detected": False}}
    assert "did not see its control" in summary({**calm, "check": unseen})
    bare = once({}, check=None, solo=None)
    assert "interference" not in summary(bare).lower() and "Validation loss" in Page(train_once_report(bare)).words


def test_it_is_written_beside_what_it_tells(tmp_path: Path) -> None:
    told = once({})
    (tmp_path / "train_once.json").write_text(json.dumps(told))
    (tmp_path / "check").mkdir()
    (tmp_path / "check" / "report.html").write_text("")
    page = Page(write_report(tmp_path).read_text())
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == ["check/report.html"]
    for words in (*told["check"]["words"], difference(told["full"]["validation"])):
        assert words in page.words
