"""The curves of a study: means over seeds with bands, and how far each arm was from the baseline on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foretrain.reports.curves import Group, axes
from foretrain.reports.plots import Chart, Line, smooth
from foretrain.reports.study_charts import Look, figure_unit, looks, titled
from foretrain.reports.study_words import Row, metric_words
from foretrain.run_directory import RunDirectory, Series, series

_BAND_POINTS = 400
_SETTLED = 0.1


def curve_charts(
    trials: Mapping[str, Mapping[int, RunDirectory]], metrics: Mapping[str, Row], baseline: str, unit: str
) -> tuple[dict[str, Chart], list[Group]]:
    """The metrics (and the training loss and learning rate) over the run, as means over seeds with bands.

    Args:
        trials: run directories that count, by arm and seed.
        metrics: the study's, by name.
        baseline: the arm that differences are taken from.
        unit: `flops`, `tokens` or `steps`: at what equal amount a seed is compared with itself in the baseline.
    """
    style = looks(list(trials), baseline)
    rows = {arm: [run.metrics() for run in runs.values()] for arm, runs in trials.items()}
    figures = list(dict.fromkeys(str(metric.get("figure") or name) for name, metric in metrics.items()))
    found: dict[str, Chart] = {}
    groups = []

    def lines(figure: str, smoothed: bool = False) -> list[Line]:
        made = []
        for arm, runs in rows.items():
            curves = [smooth(series(run, figure)) if smoothed else series(run, figure) for run in runs]
            steps, values = _aligned(curves)
            if steps.size > 1:
                made.append(_banded(arm, steps, values, style[arm]))
        return made

    for figure in figures:
        shown: dict[str, Chart] = {}
        chart = Chart(titled(metric_words(figure)), figure_unit(figure), lines(figure))
        if not chart.empty:
            shown[f"curve/{figure}"] = chart
            gap = _gap(trials, figure, baseline, unit, style)
            if not gap.empty:
                shown[f"gap/{figure}"] = gap
        if shown:
            found |= shown
            groups.append(Group("", list(shown)))
    training = {"curve/lr": Chart("Learning rate", "learning rate", lines("lr"), number=".3~g")}
    if "loss" not in figures:
        training = {
            "curve/loss": Chart("Training loss, running mean", figure_unit("loss"), lines("loss", True)),
            **training,
        }
    training = {name: chart for name, chart in training.items() if not chart.empty}
    return found | training, [*groups, Group("Training", list(training))] if training else groups


def axis_tables(trials: Mapping[str, Mapping[int, RunDirectory]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What converts the horizontal axis: the longest arm's table, and one for each arm, in the units that all have."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm, runs in trials.items():
        known = [table for run in runs.values() if len((table := axes(run))["steps"]) > 1]
        if known:
            found[arm] = max(known, key=lambda table: table["steps"][-1])
    if not found:
        return {"steps": []}, {}
    shared = [name for name in next(iter(found.values())) if all(name in table for table in found.values())]
    tables = {arm: {name: table[name] for name in shared} for arm, table in found.items()}
    return max(tables.values(), key=lambda table: table["steps"][-1]), tables


def _aligned(curves: Sequence[Series]) -> tuple[np.ndarray, np.ndarray]:
    """Steps at which all curves have a finite value, thinned, and the values: (curves, steps)."""
    curves = [curve for curve in curves if np.isfinite(curve.values).any()]
    if not curves:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 0))
    finite = [curve.steps[np.isfinite(curve.values)] for curve in curves]
    steps = finite[0]
    for other in finite[1:]:
        steps = np.intersect1d(steps, other)
    if steps.size > _BAND_POINTS:
        steps = steps[np.unique(np.linspace(0, steps.size - 1, _BAND_POINTS).astype(int))]
    return steps, np.stack([curve.values[np.searchsorted(curve.steps, steps)] for curve in curves])


def _banded(arm: str, steps: np.ndarray, values: np.ndarray, look: Look) -> Line:
    mean = values.mean(axis=0)
    low = high = None
    if values.shape[0] > 1:
        spread = values.std(axis=0, ddof=1)
        low, high = Series(steps, mean - spread), Series(steps, mean + spread)
    return Line(arm, Series(steps, mean), colour=look.colour, low=low, high=high, dash=look.shape, table=arm)


def _gap(
    trials: Mapping[str, Mapping[int, RunDirectory]], figure: str, baseline: str, unit: str, style: Mapping[str, Look]
) -> Chart:
    """How far each arm is from the baseline on the way, seed by seed, where both have spent the same."""
    base = {seed: _spent(run, figure, unit) for seed, run in trials.get(baseline, {}).items()}
    lines: list[Line] = []
    level: list[float] = []
    for arm, runs in trials.items():
        curves = []
        for seed, run in runs.items() if arm != baseline else ():
            found, other = _spent(run, figure, unit), base.get(seed)
            if other is None or other[0].size < 2 or found[0].size < 2:
                continue
            spent, values, steps = found
            within = (spent >= other[0][0]) & (spent <= 1.005 * other[0][-1])
            curves.append(Series(steps[within], values[within] - np.interp(spent[within], other[0], other[1])))
        steps, values = _aligned(curves)
        if steps.size > 1:
            line = _banded(arm, steps, values, style[arm])
            lines.append(line)
            settled = steps >= _SETTLED * steps[-1]
            for bound in (line.series, line.low, line.high):
                level += [] if bound is None else bound.values[settled].tolist()
    limits = (min(0.0, *level), max(0.0, *level)) if level else None
    words = {"flops": "FLOPs", "tokens": "tokens"}.get(unit, "steps")
    return Chart(
        f"Difference from {baseline}", figure_unit(figure), lines, f"By seed, at the same {words}.", limits=limits
    )


def _spent(run: RunDirectory, figure: str, unit: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What had been spent at each value of a figure, the values, and the steps."""
    found = series(run.metrics(), figure)
    keep = np.isfinite(found.values)
    steps, values = found.steps[keep], found.values[keep]
    if unit not in ("flops", "tokens"):
        return steps.astype(np.float64), values, steps
    amounts = series(run.metrics(), unit)
    if amounts.steps.size == 0:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    return np.interp(steps, amounts.steps, amounts.values), values, steps
