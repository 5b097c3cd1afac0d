"""Weights and mixtures by value are decided from the rows of all ranks: two processes equal one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data, tiny_trainer

STEPS = 6
SHARED = {"feedback": "problems", "every": 2, "parameters": "last:1", "items": 6}
RECIPE: dict[str, Any] = {
    "budget": {"steps": STEPS},
    "overlap": "warn",
    "feedback": {
        "problems": {
            "path": "builtin:arithmetic",
            "options": {"count": 30, "seed": 7},
            "prompt": "question",
            "completion": "solution",
        }
    },
    "steering": [
        {"kind": "value_weighting", "level": "sample", **SHARED},
        {"kind": "value_weighting", "level": "domain", **SHARED},
        {"kind": "value_mixture", "rate": 0.5, "rows": 0.4, **SHARED},
    ],
    "probes": [{"kind": "one_step", "feedback": "problems", "pairs": 3, "rows": 3, "items": 5, "every": 3}],
}


@pytest.fixture(scope="module")
def one_process() -> dict[int, dict[str, Any]]:
    trainer = tiny_trainer(STEPS, **RECIPE)
    lines = {0: trainer.measure()}
    for step in range(1, STEPS + 1):
        lines[step] = trainer.train_step() | trainer.measure()
    return lines


def test_two_processes_equal_one(one_process: dict[int, dict[str, Any]], tmp_path: Path) -> None:
    data = tiny_data(**RECIPE, distributed="shard", batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    found: dict[int, dict[str, Any]] = {}
    for line in lines_of_run(tmp_path, data, 2):
        found.setdefault(line["step"], {}).update(line)
    names = ("loss", "value_weighting/", "value_mixture/", "domain/", "feedback/", "probe/one_step/")
    compared = 0
    for step, figures in one_process.items():
        for name, value in figures.items():
            if name.startswith(names):
                assert found[step][name] == pytest.approx(value, rel=5e-3, abs=5e-5), (step, name)
                compared += 1
    assert compared > 60
