"""Masks of a row and the change of phase are the same on any rank: two processes equal one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data, tiny_trainer

STEPS = 4
RECIPE: dict[str, Any] = {
    "budget": {"steps": STEPS},
    "model": {"kind": "eurobert", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": CONTEXT},
    "objective": {
        "kind": "phases",
        "phases": {"causal": {"objective": "causal_lm"}, "masked": {"objective": "masked_lm"}},
    },
}


@pytest.mark.parametrize("strategy", ["replicate", pytest.param("shard", marks=pytest.mark.slow)])
def test_two_processes_equal_one(strategy: str, tmp_path: Path) -> None:
    one = tiny_trainer(STEPS, **RECIPE)
    data = tiny_data(**RECIPE, distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    lines = [line for line in lines_of_run(tmp_path, data, 2) if "loss" in line]
    assert len(lines) == STEPS
    for line in lines:
        for name, value in one.train_step().items():
            if name in ("loss", "gradient_norm"):
                assert line[name] == pytest.approx(value, rel=5e-3, abs=5e-5), (line["step"], name)
