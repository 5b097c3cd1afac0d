"""Weights by loss and by a teacher are decided from the rows of all ranks: two processes equal one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tasks.subjects import byte_tokenizer, model
from tests.tiny import CONTEXT, tiny_data, tiny_trainer

STEPS = 6
# Each of these would change the run if it were decided from one rank's rows alone.
PARTS: list[dict[str, Any]] = [
    {"kind": "dynamic_loss_reweighting", "level": "token", "burn_in": 1},
    {"kind": "dynamic_loss_reweighting", "level": "row", "temperature": 0.1, "floor": 0.6, "burn_in": 1},
    {"kind": "llkd", "model": "teacher", "uncertainty": 0.5, "confidence_threshold": 0.0005, "burn_in": 2},
    {"kind": "random_selection", "model": "teacher", "level": "row", "burn_in": 3},
]


@pytest.mark.parametrize("strategy", ["replicate", pytest.param("shard", marks=pytest.mark.slow)])
def test_two_processes_equal_one(strategy: str, tmp_path: Path) -> None:
    model(context=CONTEXT).save_pretrained(tmp_path / "teacher")
    byte_tokenizer().save(tmp_path / "teacher")
    recipe: dict[str, Any] = {
        "budget": {"steps": STEPS},
        "models": {"teacher": str(tmp_path / "teacher")},
        "steering": PARTS,
    }
    one = tiny_trainer(STEPS, **recipe)
    data = tiny_data(**recipe, distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    lines = [line for line in lines_of_run(tmp_path, data, 2) if "loss" in line]
    assert len(lines) == STEPS
    compared = 0
    for line in lines:
        for name, value in one.train_step().items():
            if name.startswith(("loss", "gradient_norm", "dynamic_loss", "llkd/", "random_selection/")):
                assert line[name] == pytest.approx(value, rel=5e-3, abs=5e-5), (line["step"], name)
                compared += 1
    assert compared > 60
