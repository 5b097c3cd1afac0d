"""What regularisers of continual training hold of past stages is the same in two processes as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data

PARTS = [
    {"kind": "synaptic_intelligence", "strength": 20.0},
    {"kind": "elastic_weight_consolidation", "windows": 6, "strength": 20.0},
]
STAGES = {"first": {"weights": {"prose": 1}}, "second": {"weights": {"sums": 1}}}
FIGURES = ("loss", "synaptic_intelligence/penalty", "elastic_weight_consolidation/penalty")


def _run(folder: Path, processes: int, **changes: Any) -> list[list[float]]:
    corpus = {name: {**domain, "weight": 1} for name, domain in tiny_data()["corpus"].items()}
    data = tiny_data(corpus=corpus, stages=STAGES, steering=PARTS, **changes)
    lines = [line for line in lines_of_run(folder, data, processes) if "loss" in line]
    return [[line[name] for name in FIGURES] for line in lines]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> list[list[float]]:
    return _run(tmp_path_factory.mktemp("one"), 1)


@pytest.mark.parametrize("strategy", ["replicate", pytest.param("shard", marks=pytest.mark.slow)])
def test_two_processes_equal_one(strategy: str, one_process: list[list[float]], tmp_path: Path) -> None:
    micro = {"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT}
    found = _run(tmp_path, 2, distributed=strategy, batch=micro)
    assert len(found) == 8 and min(found[-1]) > 0
    for here, there in zip(found, one_process, strict=True):
        assert here == pytest.approx(there, rel=2e-3, abs=1e-7)
