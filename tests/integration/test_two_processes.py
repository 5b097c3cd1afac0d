"""Two processes under torchrun equal one, to rounding, whether the model is replicated or sharded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data

STEPS = 20


def losses(lines: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [line["loss"] for line in lines if "loss" in line], [
        line["validation/loss"] for line in lines if "validation/loss" in line
    ]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], list[float]]:
    return losses(lines_of_run(tmp_path_factory.mktemp("one"), tiny_data(budget={"steps": STEPS})))


@pytest.mark.parametrize("strategy", ["replicate", "shard"])
def test_two_processes_equal_one(strategy: str, one_process: tuple[list[float], list[float]], tmp_path: Path) -> None:
    data = tiny_data(budget={"steps": STEPS}, distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    training, validation = losses(lines_of_run(tmp_path, data, 2))
    assert len(training) == STEPS
    assert training == pytest.approx(one_process[0], abs=1e-6)
    assert validation == pytest.approx(one_process[1], abs=1e-6)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
