"""The matrix of losses by stage and domain, from what a run left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from foretrain.reports.run_report import run_report
from foretrain.reports.stage_matrix import stage_matrix
from foretrain.run_directory import RunDirectory
from tests.reports.conftest import write_run
from tests.reports.pages import Page

STAGES = [
    {"name": "first", "first": 0, "end": 4, "weights": {"prose": 1.0, "code": 0.0}},
    {"name": "second", "first": 4, "end": 8, "weights": {"prose": 0.5, "code": 0.5}},
]
LOSSES = {0: (6.0, 6.5), 2: (5.0, 6.25), 4: (3.0, 6.0), 8: (3.5, 4.0)}


def _run(folder: Path, until: int = 8, stages: list[dict[str, Any]] | None = None) -> RunDirectory:
    run = write_run(folder, steps=8, domains=("prose", "code"), tasks=False, result=False)
    plan = run.plan() | {"stages": STAGES if stages is None else stages}
    run.plan_path.write_text(json.dumps(plan))
    lines = []
    for step, (prose, code) in LOSSES.items():
        line = {"step": step, "validation/prose/loss": prose, "validation/code/loss": code, "validation/loss": prose}
        if step == 8:
            line |= {"stages/forgetting": 0.5, "stages/retained": 3.75}
        if step <= until:
            lines.append(json.dumps(line))
    run.metrics_path.write_text("\n".join(lines) + "\n")
    return run


def test_rows_are_stage_ends_and_columns_domains(tmp_path: Path) -> None:
    run = _run(tmp_path / "run")
    found = stage_matrix(run, run.plan())
    assert found["domains"] == ["prose", "code"]
    assert [row["name"] for row in found["rows"]] == ["before the first", "first", "second"]
    assert [[cell["text"] for cell in row["cells"]] for row in found["rows"]] == [
        ["6.000", "6.500"],
        ["3.000", "6.000"],
        ["3.500", "4.000"],
    ]
    # Shaded within a column: from its lowest loss to its highest.
    assert [row["cells"][0]["heat"] for row in found["rows"]] == [1.0, 0.0, round(0.5 / 3, 3)]
    assert [[cell["drawn"] for cell in row["cells"]] for row in found["rows"]] == [
        [False, False],
        [True, False],
        [True, True],
    ]
    assert found["figures"] == [("retained", "3.750"), ("forgetting", "0.5000")]


def test_it_stands_in_the_report_and_not_among_the_curves(tmp_path: Path) -> None:
    page = Page(run_report(_run(tmp_path / "run")))
    assert "Stages" in page.words and "before the first 6.000 6.500" in page.words
    assert not [name for name in page.charts if name.startswith("stages/")]


def test_there_is_none_without_stages_or_before_the_first_has_ended(tmp_path: Path) -> None:
    plain = _run(tmp_path / "plain", stages=[])
    early = _run(tmp_path / "early", until=2)
    assert stage_matrix(plain, plain.plan()) == {} == stage_matrix(early, early.plan())
    assert "Stages" not in Page(run_report(plain)).words
