"""A mixture learned in two processes equals that of one: proxy runs, losses and weights are those of all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data

STEPS = 6
CORPUS = {
    "prose": {"path": "builtin:biographies", "options": {"people": 100}, "validation": 0.2, "steer": 0.2},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 100}, "validation": 0.2, "steer": 0.2},
}
PARTS = [{"kind": "skill_it", "every": 1, "per_round": 2, "window": 2, "proxy_steps": 2, "tokens": 512}]
CONSTANT = {"kind": "constant", "warmup": 0}  # all of a proxy step in the first one, so that sums over ranks show


def _data(**changes: Any) -> dict[str, Any]:
    return tiny_data(budget={"steps": STEPS}, corpus=CORPUS, steering=PARTS, schedule=CONSTANT, **changes)


def _figures(found: list[dict[str, Any]]) -> dict[str, list[float]]:
    lines = [line for line in found if "loss" in line]
    names = {name for line in lines for name in line if name.startswith("skill_it/")}
    return {
        name: [line[name] for line in lines if name in line] for name in (*sorted(names), "domain/sums/weight", "loss")
    }


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return _figures(lines_of_run(tmp_path_factory.mktemp("one"), _data()))


@pytest.mark.parametrize("strategy", ["replicate", pytest.param("shard", marks=pytest.mark.slow)])
def test_two_processes_equal_one(strategy: str, one_process: dict[str, list[float]], tmp_path: Path) -> None:
    data = _data(distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    found = _figures(lines_of_run(tmp_path, data, 2))
    assert set(found) == set(one_process) and len(found) == 4 + 2 + 2
    assert len(set(found["domain/sums/weight"])) == 3, "the recipe's, the first one and that of a round"
    for name, values in one_process.items():
        assert found[name] == pytest.approx(values, rel=2e-3, abs=2e-5), name
