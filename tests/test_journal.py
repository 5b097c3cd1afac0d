"""Journals: whole lines only, exact after a kill at any byte, non-finite figures kept, a full disk told."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from foretrain import faults
from foretrain.errors import CorruptFile, RunError
from foretrain.journal import Journal, decode_record, encode_record, read_journal


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    faults.arm("")


def fill(journal: Journal, first: int, last: int) -> None:
    for step in range(first, last):
        journal.write({"step": step, "loss": 1 / (step + 1), "name": f"é{step}"})


def test_lines_are_there_at_once_and_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with Journal(path) as journal:
        journal.write({"step": 1, "loss": 0.1 + 0.2, "lr": 5e-324, "skipped": "spike", "ok": True, "none": None})
        # One line of JSON, in the order given, visible before anything is flushed or closed.
        assert (
            path.read_text()
            == '{"step": 1, "loss": 0.30000000000000004, "lr": 5e-324, "skipped": "spike", "ok": true, "none": null}\n'
        )
        assert read_journal(path)[0]["loss"] == 0.1 + 0.2
        assert journal.offset() == path.stat().st_size
    assert read_journal(tmp_path / "none.jsonl") == []


def test_numpy_numbers_are_numbers_and_tensors_are_refused() -> None:
    assert encode_record(
        {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(0.1), "d": np.bool_(True)}
    ) == encode_record({"a": 0.5, "b": 3, "c": 0.1, "d": True})
    with pytest.raises(TypeError, match="loss"):
        encode_record({"loss": torch.tensor(1.0)})


def test_not_finite_is_null_and_comes_back() -> None:
    line = encode_record({"step": 1, "loss": math.nan, "norm": -math.inf, "other": math.inf, "fine": 1.0})
    parsed = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert parsed["loss"] is None and parsed["not_finite"] == {"loss": "nan", "norm": "-inf", "other": "inf"}
    record = decode_record(line)
    assert math.isnan(record["loss"]) and record["norm"] == -math.inf and record["other"] == math.inf
    assert set(record) == {"step", "loss", "norm", "other", "fine"}


def test_a_resumed_file_equals_an_uninterrupted_one_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    with Journal(whole) as journal:
        fill(journal, 0, 3)
        offset = journal.offset()
        fill(journal, 3, 6)
    data = whole.read_bytes()
    path = tmp_path / "cut.jsonl"
    for size in range(offset, len(data) + 1):
        path.write_bytes(data[:size])
        assert len(read_journal(path)) == data[:size].count(b"\n")  # a half line is not a record
        with Journal(path) as journal:
            journal.truncate(offset)
            fill(journal, 3, 6)
        assert path.read_bytes() == data


def test_without_truncating_a_half_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        fill(journal, 0, 3)
    data = path.read_bytes()
    path.write_bytes(data + b'{"step": 3, "lo')
    with Journal(path) as journal:
        fill(journal, 3, 4)
    assert [record["step"] for record in read_journal(path)] == [0, 1, 2, 3]
    path.write_bytes(b"x" * 200_000)  # nothing but half a line, longer than what is looked at at once
    with Journal(path) as journal:
        assert journal.offset() == 0 and path.stat().st_size == 0


@pytest.mark.parametrize("offset", [-1, 5, 10_000])
def test_an_offset_of_another_file_is_refused(tmp_path: Path, offset: int) -> None:
    with Journal(tmp_path / "metrics.jsonl") as journal:
        fill(journal, 0, 3)
        before = journal.offset()
        with pytest.raises(RunError, match=r"metrics\.jsonl .*does not go with the checkpoint"):
            journal.truncate(offset)
        assert journal.offset() == before


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2\n{"step": 3}\n')
    with pytest.raises(CorruptFile, match="line 2"):
        read_journal(path)
    path.write_text("[1]\n")
    with pytest.raises(CorruptFile, match="line 1"):
        read_journal(path)


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from foretrain.errors import RunError
from foretrain.journal import Journal
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
journal = Journal(Path(sys.argv[1]))
try:
    for step in range(1000):
        journal.write({"step": step, "loss": 0.5})
except RunError as error:
    print(step, error)
"""
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    failed, _, words = done.stdout.partition(" ")
    assert "metrics.jsonl could not be written" in words
    assert path.read_bytes().endswith(b"}\n")
    assert len(read_journal(path)) == int(failed) > 20


def test_an_armed_full_disk(tmp_path: Path) -> None:
    with Journal(tmp_path / "timing.jsonl") as journal:
        fill(journal, 0, 2)
        faults.arm("full-disk:1")
        with pytest.raises(RunError, match=r"timing\.jsonl .*disk is full"):
            fill(journal, 2, 3)
        faults.arm("")
        fill(journal, 2, 3)
    assert [record["step"] for record in read_journal(tmp_path / "timing.jsonl")] == [0, 1, 2]


def test_a_killed_process_loses_no_line(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from foretrain.journal import Journal
journal = Journal(Path(sys.argv[1]))
for step in range(100):
    journal.write({"step": step})
"""
    path = tmp_path / "metrics.jsonl"
    command = [sys.executable, "-c", script, str(path)]
    environment = {**os.environ, "FORETRAIN_FAULT": "write:42"}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert [record["step"] for record in read_journal(path)] == list(range(41))
