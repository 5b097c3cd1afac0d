"""Cores and GPUs that trials may share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from foretrain.studies import machine


def test_cores_are_those_this_process_may_use() -> None:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(own)})
    try:
        assert machine.cores() == [max(own)] and machine.core_count() == 1
    finally:
        os.sched_setaffinity(0, own)
    assert set(machine.cores()) == own


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu.max": "odd"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_container_may_have_less_time_than_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], count: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    lines = ["0::/some/group", "4:cpu:/other/group", "3:cpuset:/"]
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: list(range(8)))
    monkeypatch.setattr(Path, "read_text", _reading("\n".join(lines)))
    assert machine.core_count() == count


def _reading(groups: str):  # type: ignore[no-untyped-def]
    plain = Path.read_text
    return lambda path: groups if str(path) == "/proc/self/cgroup" else plain(path)


def test_a_limit_of_a_nearer_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for group, quota in (("", 4), ("some", 2), ("some/group", 3)):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(f"{quota}00000 100000")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "cores", lambda: list(range(8)))
    monkeypatch.setattr(Path, "read_text", _reading("0::/some/group"))
    assert machine.core_count() == 2


@pytest.mark.parametrize(
    ("variable", "count", "names"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("3, 1", 2, ["3", "1"]),
        ("GPU-a", 1, ["GPU-a"]),
        ("", 0, []),
    ],
)
def test_gpus_keep_the_names_that_this_process_knows_them_by(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, count: int, names: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert machine.gpus() == names


def test_every_library_is_told_its_threads() -> None:
    found = machine.thread_variables(3)
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "3"
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
