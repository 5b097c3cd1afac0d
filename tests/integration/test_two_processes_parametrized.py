"""Runs with other parametrizations in two processes equal one: every rank draws and masks the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data

STEPS = 6
PARTS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora"},
    "sltrain": {"kind": "sltrain"},
    "spdf": {"kind": "spdf", "release": 3, "ramp": 2},
}


def _run(folder: Path, kind: str, processes: int, **changes: Any) -> tuple[list[float], Any]:
    if PARTS[kind]["kind"] == "lora":
        pytest.importorskip("peft", reason="peft is not installed (extra [peft])")
    optimizer = {"lr": 0.01}
    data = tiny_data(budget={"steps": STEPS}, parametrization=PARTS[kind], optimizer=optimizer, **changes)
    lines = lines_of_run(folder, data, processes)
    return [line["loss"] for line in lines if "loss" in line], AutoModelForCausalLM.from_pretrained(
        folder / "run/model"
    )


@pytest.fixture(
    scope="module",
    params=["sltrain", pytest.param("lora", marks=pytest.mark.slow), pytest.param("spdf", marks=pytest.mark.slow)],
)
def one_process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Any]:
    return request.param, *_run(tmp_path_factory.mktemp(request.param), request.param, 1)


@pytest.mark.parametrize("strategy", ["shard", pytest.param("replicate", marks=pytest.mark.slow)])
def test_two_processes_equal_one(strategy: str, one_process: tuple[str, Any, Any], tmp_path: Path) -> None:
    kind, losses, model = one_process
    found, other = _run(tmp_path, kind, 2, distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    assert len(found) == STEPS and found == pytest.approx(losses, rel=2e-4)
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        # Adam's first steps are of its own size wherever a gradient is next to nothing.
        assert torch.quantile((a - b).abs(), 0.99) < 2e-4, name
