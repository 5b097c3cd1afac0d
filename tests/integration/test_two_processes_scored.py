"""Documents that models score are scored once, and alike, whether one process runs or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.files import read_json
from tests.processes import lines_of_run
from tests.steering.teachers import save_teacher
from tests.tiny import CONTEXT, tiny_data

STEPS = 3


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    seeds = {"teacher": 7, "reference": 8}
    models = {name: {"path": save_teacher(tmp_path / name, steps=8, seed=seed)} for name, seed in seeds.items()}
    corpus: dict[str, Any] = {"path": "builtin:biographies", "options": {"people": 60}, "validation": 0.2}
    corpus |= {"score": "miniplm", "keep": {"share": 0.5, "best": "highest"}}
    data = tiny_data(budget={"steps": STEPS}, models=models, corpus={"prose": corpus}, distributed="replicate")
    losses, costs, found = {}, {}, {}
    for processes, batch in ((1, {}), (2, {"batch": {"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT}})):
        folder = tmp_path / str(processes)
        folder.mkdir()
        lines = lines_of_run(folder, {**data, **batch}, processes)
        losses[processes] = [line["loss"] for line in lines if "loss" in line]
        costs[processes] = read_json(folder / "run" / "plan.json")["reports"]["prose"]["scoring_flops"]
        # Named by content: what one process had read, the other found.
        found[processes] = sorted(path.name for path in (folder / "cache" / "losses").glob("[!.]*"))
    assert found[1] == found[2] and len(found[1]) == 2
    assert len(losses[1]) == STEPS and costs[1] == costs[2] > 0
    assert losses[2] == pytest.approx(losses[1], rel=1e-3)
