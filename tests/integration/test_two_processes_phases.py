"""What is predicted, cut out or run is the same on any rank: two processes equal one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data, tiny_trainer

STEPS = 4
RECIPES: dict[str, dict[str, Any]] = {
    "phases": {
        "model": {"kind": "eurobert", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": CONTEXT},
        "objective": {
            "kind": "phases",
            "phases": {"causal": {"objective": "causal_lm"}, "masked": {"objective": "masked_lm"}},
        },
    },
    "ul2": {"objective": "ul2"},
    "sub_models": {
        "model": {"kind": "llama", "layers": 4, "width": 16, "heads": 2, "feedforward": 24, "context": CONTEXT},
        "steering": [{"kind": "sub_models", "blocks": 1, "until": 0.75}],
    },
}


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        *((name, "replicate") for name in RECIPES),
        # Sub-models of a sharded model are refused.
        *(pytest.param(name, "shard", marks=pytest.mark.slow) for name in ("phases", "ul2")),
    ],
)
def test_two_processes_equal_one(name: str, strategy: str, tmp_path: Path) -> None:
    recipe = {"budget": {"steps": STEPS}, **RECIPES[name]}
    one = tiny_trainer(STEPS, **recipe)
    data = tiny_data(**recipe, distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    lines = [line for line in lines_of_run(tmp_path, data, 2) if "loss" in line]
    assert len(lines) == STEPS
    for line in lines:
        for figure, value in one.train_step().items():
            if figure in ("loss", "gradient_norm"):
                assert line[figure] == pytest.approx(value, rel=5e-3, abs=5e-5), (line["step"], figure)
