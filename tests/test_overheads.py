"""What parts were measured to cost, as listings say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretrain import overheads
from foretrain.parts import kinds
from foretrain.steering.base import Steering

RECORD = {
    "date": "2026-11-28",
    "preset": "1M",
    "tokens": 2048,
    "precision": "fp32",
    "parts": {"replay": {"time": 1.5, "processor": 1.02, "flops": 1.0, "memory": 1.1}},
}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    monkeypatch.setattr(overheads, "PATH", tmp_path / "record.json")
    overheads._record.cache_clear()
    yield
    overheads._record.cache_clear()


@pytest.mark.usefixtures("record")
def test_words() -> None:
    words = "1.02 times the processor time of a plain step, 1.00 the FLOPs, 1.10 the memory"
    assert overheads.measured_words("steering", "replay") == words
    assert overheads.measured_words("steering", "nexus") == "" == overheads.measured_words("probe", "replay")
    assert "2,048 tokens a step" in overheads.circumstances()


def test_the_record_is_of_parts_that_exist() -> None:
    known = json.loads(overheads.PATH.read_text())["parts"] if overheads.PATH.is_file() else {}
    assert set(known) <= set(kinds(Steering))


def test_without_a_record_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overheads, "PATH", tmp_path / "none.json")
    overheads._record.cache_clear()
    assert overheads.measured("steering", "replay") is None and overheads.circumstances() == ""
    overheads._record.cache_clear()
