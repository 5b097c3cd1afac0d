"""Overheads: what parts were measured to cost beside plain training (`benchmarks/parts_overhead.py`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from foretrain.files import read_json

PATH = Path(__file__).parent / "overheads.json"
"""The record that comes with the package."""


@cache
def _record() -> dict[str, Any]:
    found: dict[str, Any] = read_json(PATH) if PATH.is_file() else {"parts": {}}
    return found


def measured(axis: str, kind: str) -> dict[str, float] | None:
    """`time`, `processor`, `flops` and `memory` of steps with a part, as multiples of plain ones; None if unknown."""
    return _record()["parts"].get(kind) if axis == "steering" else None


def measured_words(axis: str, kind: str) -> str:
    """The same in words: `1.11 times the processor time of a plain step, 1.10 the FLOPs, 1.08 the memory`."""
    found = measured(axis, kind)
    if found is None:
        return ""
    return (
        f"{found['processor']:.2f} times the processor time of a plain step, {found['flops']:.2f} the FLOPs, "
        f"{found['memory']:.2f} the memory"
    )


def circumstances() -> str:
    """What the figures hold for; empty where there are none."""
    record = _record()
    if not record["parts"]:
        return ""
    return (
        f"measured {record['date']} with a learner of {record['preset']} parameters, {record['tokens']:,} tokens a "
        f"step, {record['precision']}"
    )
