"""Steered runs in two processes equal one: feedback gradients, values and the designer are those of all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, PROBLEMS, tiny_data

STEPS = 8
FEEDBACK = {"problems": {**PROBLEMS, "options": {"count": 30, "seed": 7}}}
PARTS = [
    {
        "kind": "v_pretraining",
        "feedback": "problems",
        "every": 2,
        "burn_in": 1,
        "parameters": "last:1",
        "rows": 1,
        "items": 6,
        "designer_lr": 0.01,
        "designer": {"layers": 1, "width": 16, "heads": 1},
    },
]


def _data(**changes: Any) -> dict[str, Any]:
    return tiny_data(budget={"steps": STEPS}, feedback=FEEDBACK, overlap="warn", steering=PARTS, **changes)


def _figures(found: list[dict[str, Any]]) -> dict[str, list[float]]:
    lines = [line for line in found if "loss" in line]
    names = ("loss", "v_pretraining/value", "v_pretraining/alpha", "v_pretraining/cosine", "feedback/problems/loss")
    return {name: [line[name] for line in lines if name in line] for name in names}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return _figures(lines_of_run(tmp_path_factory.mktemp("one"), _data()))


@pytest.mark.parametrize("strategy", ["replicate", "shard"])
def test_two_processes_equal_one(strategy: str, one_process: dict[str, list[float]], tmp_path: Path) -> None:
    data = _data(distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    found = _figures(lines_of_run(tmp_path, data, 2))
    assert len(found["loss"]) == STEPS and len(found["v_pretraining/value"]) == 4
    for name, values in one_process.items():
        assert found[name] == pytest.approx(values, rel=2e-3, abs=2e-5), name
