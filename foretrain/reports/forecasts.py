"""Forecasts of a run in its report: the last one drawn beside what was measured, and all of them as a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from foretrain import units
from foretrain.forecasts.ledger import entries
from foretrain.reports.plots import Chart, Line, smooth
from foretrain.run_directory import RunDirectory, Series

_COLUMNS = [("made", False), ("figure", False), ("by", False), ("from steps", True), ("of step", True)]
_COLUMNS += [("predicted", True), ("90 %", True), ("measured", True), ("error", True), ("within", False)]


def forecast_charts(run: RunDirectory) -> dict[str, Chart]:
    """The last forecast beside the curve, by the chart's name; empty for a run of which nothing was predicted."""
    found = entries(run)
    if not found:
        return {}
    last = found[-1]
    path = last["path"]
    steps = np.array(path["steps"], dtype=np.int64)
    told, low, high = (Series(steps, np.array(path[name])) for name in ("values", "low", "high"))
    name = "would be" if last["what_if"] else "predicted"
    measured = smooth(run.series(last["figure"]))
    # The first fall would flatten all that follows.
    shown = measured.steps >= 0.02 * measured.steps[-1] if measured.steps.size else measured.steps > 0
    lines = [
        Line("measured", Series(measured.steps[shown], measured.values[shown])),
        Line(name, told, colour=1, low=low, high=high, dash=1),
    ]
    return {"forecast": Chart("The last forecast", last["figure"], lines, note=last["words"], wide=True)}


def forecast_table(run: RunDirectory) -> dict[str, Any]:
    """Columns and rows: every forecast, and how it came out."""
    rows = []
    for entry in entries(run):
        score = entry["score"]
        came = [units.measured(score["measured"]), units.share(score["error"])] if score else [units.MISSING] * 2
        within = "what if" if entry["what_if"] else ("yes" if score["covered"] else "no") if score else units.MISSING
        between = f"{units.measured(entry['low'])} to {units.measured(entry['high'])}"
        row = [entry["at"], entry["figure"], entry["law"]["kind"], f"{entry['seen']:,}", f"{entry['end']:,}"]
        rows.append([*row, units.measured(entry["value"]), between, *came, within])
    return {"columns": _COLUMNS, "rows": rows}
