"""The ledger of forecasts: what was predicted of a run, when and from what, and how it came out once the run ended.

A forecast is a line of `forecasts.jsonl` in the run's directory and is never changed. How it came out is read from the
run each time: nothing that was predicted can be made to fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from foretrain.errors import RequestError
from foretrain.files import failed_write
from foretrain.journal import read_journal
from foretrain.run_directory import RunDirectory

LEVEL = 0.9
"""What every interval is meant to hold of what comes."""

Entry = Mapping[str, Any]


def append(run: RunDirectory, entry: Entry) -> None:
    """Write a forecast into a run's ledger.

    Raises:
        RunError: the disk is full.
    """
    line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    try:
        handle = os.open(run.forecasts_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
    except OSError as error:
        raise failed_write("A forecast", run.path, error) from error


def entries(run: RunDirectory) -> list[dict[str, Any]]:
    """All forecasts of a run, oldest first, each with what came of it (see `score`)."""
    return [{**entry, "score": score(entry, run)} for entry in read_journal(run.forecasts_path)]


def score(entry: Entry, run: RunDirectory) -> dict[str, Any] | None:
    """How a forecast came out: None before the run's end, and for what another schedule or length would have done.

    Returns:
        `measured` at the end, its relative `error`, whether the interval `covered` it, and `path_error`: the mean
        relative error over the predicted steps that were measured.
    """
    if entry["what_if"] or run.status() != "done":
        return None
    series = run.series(entry["figure"])
    measured = {int(step): float(value) for step, value in zip(*series, strict=True) if np.isfinite(value)}
    if (end := measured.get(entry["end"])) is None:
        return None
    path = entry["path"]
    pairs = [
        (told, measured[step]) for step, told in zip(path["steps"], path["values"], strict=True) if step in measured
    ]
    return {
        "measured": end,
        "error": abs(entry["value"] - end) / abs(end),
        "covered": entry["low"] <= end <= entry["high"],
        "path_error": fmean(abs(told - came) / abs(came) for told, came in pairs),
    }


def ledger(folder: Path | str) -> dict[str, Any]:
    """Every forecast of the runs below a folder (or of the run that it is), and how good they were, by law.

    Returns:
        `forecasts`, and `laws`: per kind how many were scored, their mean relative `error` at the end, and the share
        `covered` by intervals that are meant to hold 90 %.

    Raises:
        RequestError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder} to look for forecasts in.")
    runs = [RunDirectory(path.parent) for path in sorted(folder.rglob("forecasts.jsonl"))]
    found = [entry for run in runs for entry in entries(run)]
    return {"forecasts": found, "laws": _by_law(found)}


def _by_law(found: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    scored: dict[str, list[Entry]] = {}
    for entry in found:
        if entry["score"] is not None:
            scored.setdefault(entry["law"]["kind"], []).append(entry["score"])
    return {
        kind: {
            "scored": len(scores),
            "error": fmean(each["error"] for each in scores),
            "covered": fmean(each["covered"] for each in scores),
        }
        for kind, scores in sorted(scored.items())
    }
