"""The matrix of a run in stages: the loss of every domain after every stage, and what it says of forgetting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from foretrain import units
from foretrain.run_directory import RunDirectory, by_domain
from foretrain.stages import FIGURES


def stage_matrix(run: RunDirectory, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Columns, rows and figures of the matrix; empty for a run without stages, or before the first of them has ended.

    A cell is a loss with `heat`, from 0 (the lowest of its domain) to 1 (its highest); those of the stages that draw
    the domain are `drawn`.
    """
    stages = plan.get("stages") or []
    lines: dict[int, dict[str, float]] = {}
    told: dict[str, float] = {}
    ends = {0, *(stage["end"] for stage in stages)}
    for line in run.metrics():
        if stages and line["step"] in ends and (found := by_domain(line)):
            lines[line["step"]] = found
            told |= {name: line[name] for name, _ in FIGURES if name in line}
    rows = [("start", 0, {})] + [(stage["name"], stage["end"], stage["weights"]) for stage in stages]
    known = [(name, lines[end], weights) for name, end, weights in rows if end in lines]
    if len(known) < 2:
        return {}
    domains = list(known[-1][1])
    ranges = {name: _range([losses.get(name, math.nan) for _, losses, _ in known]) for name in domains}
    return {
        "domains": domains,
        "rows": [
            {
                "name": name if number else "before the first",
                "cells": [_cell(losses.get(domain), ranges[domain], weights.get(domain, 0) > 0) for domain in domains],
            }
            for number, (name, losses, weights) in enumerate(known)
        ],
        "figures": [
            (name.removeprefix("stages/").replace("_", " "), units.measured(told[name]))
            for name, _ in FIGURES
            if name in told
        ],
    }


def _range(values: list[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (0.0, 0.0)


def _cell(loss: float | None, ends: tuple[float, float], drawn: bool) -> dict[str, Any]:
    low, high = ends
    if loss is None or not math.isfinite(loss):
        return {"text": units.MISSING, "heat": 0.0, "drawn": drawn}
    return {
        "text": units.measured(loss),
        "heat": round((loss - low) / (high - low), 3) if high > low else 0.0,
        "drawn": drawn,
    }
