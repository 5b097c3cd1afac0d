"""Runs with update parts and their probes in two processes equal one: groups, norms and examples are of all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.processes import lines_of_run
from tests.tiny import CONTEXT, tiny_data

STEPS = 8
PARTS: list[dict[str, Any]] = [
    # Single rows of two domains: a rank often has none of a domain, or fewer than the other.
    {"kind": "nexus", "gamma": 1.0},
    {"kind": "sharpness_aware", "rho": 0.1, "every": 2},
    {"kind": "reptile", "every": 3, "epsilon": 0.5},
    {"kind": "latest_average", "every": 1, "last": 3},
]
PROBES = [{"kind": "hessian_trace", "every": 4, "rows": 3}, {"kind": "gradient_cosine", "every": 4, "rows": 3}]
NAMES = ("loss", "nexus/cosine", "validation/loss", "probe/hessian_trace/trace", "probe/gradient_cosine/mean")


def _data(**changes: Any) -> dict[str, Any]:
    return tiny_data(budget={"steps": STEPS}, steering=PARTS, probes=PROBES, **changes)


def _figures(lines: list[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [line[name] for line in lines if name in line] for name in NAMES}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    return _figures(lines_of_run(tmp_path_factory.mktemp("one"), _data()))


@pytest.mark.parametrize("strategy", ["replicate", "shard"])
def test_two_processes_equal_one(strategy: str, one_process: dict[str, list[float]], tmp_path: Path) -> None:
    data = _data(distributed=strategy, batch={"tokens": 8 * CONTEXT, "micro": CONTEXT})
    found = _figures(lines_of_run(tmp_path, data, 2))
    assert len(found["loss"]) == STEPS and len(found["probe/hessian_trace/trace"]) == 3
    for name, values in one_process.items():
        assert found[name] == pytest.approx(values, rel=2e-4, abs=2e-5), name
