"""Two processes under torchrun equal one, to rounding, whether the model is replicated or sharded."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.journal import read_journal
from tests.processes import finish, start, write_recipe
from tests.tiny import CONTEXT, tiny_data

STEPS = 20


def losses(run: Path) -> tuple[list[float], list[float]]:
    lines = read_journal(run / "metrics.jsonl")
    return [line["loss"] for line in lines if "loss" in line], [
        line["validation/loss"] for line in lines if "validation/loss" in line
    ]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], list[float]]:
    folder = tmp_path_factory.mktemp("one")
    recipe = write_recipe(folder, tiny_data(budget={"steps": STEPS}))
    finish(start(["run", str(recipe), "--out", str(folder / "run")], FORETRAIN_CACHE=str(folder / "cache")))
    return losses(folder / "run")


@pytest.mark.parametrize("strategy", ["replicate", "shard"])
def test_two_processes_equal_one(strategy: str, one_process: tuple[list[float], list[float]], tmp_path: Path) -> None:
    data = tiny_data(budget={"steps": STEPS}, distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    recipe = write_recipe(tmp_path, data)
    finish(
        start(
            ["run", str(recipe), "--out", str(tmp_path / "run")], processes=2, FORETRAIN_CACHE=str(tmp_path / "cache")
        )
    )
    training, validation = losses(tmp_path / "run")
    assert len(training) == STEPS
    assert training == pytest.approx(one_process[0], abs=1e-6)
    assert validation == pytest.approx(one_process[1], abs=1e-6)
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
