"""Runs with teachers in two processes equal one: what is chosen, what is taught, and the students that are tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.steering.teachers import save_teacher
from tests.tiny import CONTEXT, tiny_data

STEPS = 4
SEEDS = {"teacher": 7, "other": 8}
CHOSEN = {"kind": "salt_selection", "model": "teacher", "until": 3, "pool": 3}
TAUGHT = {"kind": "distillation", "model": "teacher", "candidates": 8}
FUTURE = {"kind": "future_self_training", "ahead": 2, "decay": 0.5, "candidates": 8}
COMPATIBLE = {"kind": "muscle", "old": "teacher", "new": "other"}
PARTS = {
    "replicate": [CHOSEN, TAUGHT, {**FUTURE, "variant": "wide"}, FUTURE],
    "shard": [CHOSEN, {"kind": "offline_distillation", "model": "teacher"}, TAUGHT, COMPATIBLE],
}


def _figures(folder: Path, data: dict[str, Any], processes: int) -> dict[str, list[float]]:
    lines = [line for line in lines_of_run(folder, data, processes) if "loss" in line]
    names = {name for line in lines for name in line if "/" in name and not name.startswith("validation")}
    return {name: [line[name] for line in lines if name in line] for name in ("loss", *sorted(names))}


@pytest.mark.parametrize("strategy", PARTS)
def test_two_processes_equal_one(strategy: str, tmp_path: Path) -> None:
    models = {name: {"path": save_teacher(tmp_path / name, steps=8, seed=seed)} for name, seed in SEEDS.items()}
    data = tiny_data(budget={"steps": STEPS}, models=models, steering=PARTS[strategy], distributed=strategy)
    alone, together = tmp_path / "one", tmp_path / "two"
    for folder in (alone, together):
        folder.mkdir()
    one = _figures(alone, data, 1)
    found = _figures(together, {**data, "batch": {"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT}}, 2)
    assert one.keys() == found.keys()
    assert len(one["loss"]) == STEPS and {"salt_selection/score", "distillation/teacher_loss"} <= one.keys()
    for name, values in one.items():
        assert found[name] == pytest.approx(values, rel=1e-3, abs=1e-5), name
