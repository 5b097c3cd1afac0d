"""Steered runs in two processes equal one: feedback gradients, values and the designer are those of all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.journal import read_journal
from tests.processes import finish, start, write_recipe
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


def _figures(run: Path) -> dict[str, list[float]]:
    lines = [line for line in read_journal(run / "metrics.jsonl") if "loss" in line]
    names = ("loss", "v_pretraining/value", "v_pretraining/alpha", "v_pretraining/cosine", "feedback/problems/loss")
    return {name: [line[name] for line in lines if name in line] for name in names}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("one")
    recipe = write_recipe(folder, _data())
    finish(start(["run", str(recipe), "--out", str(folder / "run")], FORETRAIN_CACHE=str(folder / "cache")))
    return _figures(folder / "run")


@pytest.mark.parametrize("strategy", ["replicate", "shard"])
def test_two_processes_equal_one(strategy: str, one_process: dict[str, list[float]], tmp_path: Path) -> None:
    data = _data(distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    recipe = write_recipe(tmp_path, data)
    finish(
        start(
            ["run", str(recipe), "--out", str(tmp_path / "run")], processes=2, FORETRAIN_CACHE=str(tmp_path / "cache")
        )
    )
    found = _figures(tmp_path / "run")
    assert len(found["loss"]) == STEPS and len(found["v_pretraining/value"]) == 4
    for name, values in one_process.items():
        assert found[name] == pytest.approx(values, rel=2e-3, abs=2e-5), name
