"""Curves: the charts of a run and the units of their horizontal axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foretrain.reports.plots import COLOURS, Chart, Line, smooth
from foretrain.run_directory import RunDirectory, Series, series

_AXIS_POINTS = 400
_NOT_CURVES = {"step", "tokens", "flops", "loss_tokens", "seconds"}
_SPEED = {"tokens_per_second", "mfu", "memory", "tensor_memory"}
_NAMED = {"loss", "lr", "gradient_norm", "skipped", "not_finite", *_SPEED}


@dataclass(frozen=True)
class Group:
    """Charts shown together, by name, below a heading of their own (or none)."""

    title: str
    charts: list[str]


def run_charts(run: RunDirectory) -> tuple[dict[str, Chart], list[Group]]:
    """Every chart that the run's figures allow, by name, and how they are grouped."""
    rows, timing = run.metrics(), run.timing()
    skipped = Counter(str(row["skipped"]) for row in rows if row.get("skipped"))
    good = [row for row in rows if not row.get("skipped")]
    found: dict[str, Chart] = {"loss": _loss(good, rows, skipped)}
    groups = [Group("", ["loss"])]

    def add(title: str, charts: Mapping[str, Chart]) -> None:
        shown = {name: chart for name, chart in charts.items() if not chart.empty}
        if shown:
            found.update(shown)
            groups.append(Group(title, list(shown)))

    if found["loss"].empty:
        found, groups = {}, []
    add("Validation", _validation(rows))
    add("Tasks", _tasks(rows))
    add("Optimization", _optimization(good))
    add("Speed", _speed(timing))
    add("Other figures", _others(rows, timing))
    return found, groups


def axes(run: RunDirectory) -> dict[str, list[float]]:
    """Steps beside tokens, FLOPs and seconds, as far as known: what converts the horizontal axis."""
    rows = run.metrics()
    known = {name: series(rows, name) for name in ("tokens", "flops")}
    known["seconds"] = series(run.timing(), "seconds")
    steps = series(rows, "tokens").steps
    if steps.size == 0 or steps[-1] == 0:
        return {"steps": []}
    steps = np.union1d([0], steps[np.unique(np.linspace(0, steps.size - 1, _AXIS_POINTS).astype(int))])
    table: dict[str, list[float]] = {"steps": steps.tolist()}
    for name, (at, values) in known.items():
        if at.size and values[-1] > 0:
            # Nothing is spent at step 0, whether or not a line says so.
            at, values = (at, values) if at[0] == 0 else (np.append(0, at), np.append(0.0, values))
            table[name] = [float(f"{value:.7g}") for value in np.interp(steps, at, values)]
    return table


def _loss(good: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], skipped: Counter[str]) -> Chart:
    raw = series(good, "loss")
    validation = series(rows, "validation/loss")
    mean = smooth(raw)
    many = mean.steps.size > 2 * COLOURS and raw.steps.size >= 100
    lines = [Line("each step", raw, look="faint")] if many else []
    lines.append(Line("training" + (", running mean" if many else ""), mean))
    if validation.steps.size:
        lines.append(Line("validation", validation, colour=1))
    notes = []
    if skipped:
        steps = np.array([row["step"] for row in rows if row.get("skipped")], dtype=np.int64)
        level = np.interp(steps, mean.steps, mean.values) if mean.steps.size else np.zeros(steps.size)
        lines.append(Line("skipped step", Series(steps, level), look="marks"))
        reasons = ", ".join(f"{number} {reason}" for reason, number in skipped.items())
        total = sum(skipped.values())
        notes.append(f"{total} step{'s were' if total > 1 else ' was'} skipped ({reasons}).")
    return Chart("Loss", "nats per token", lines, note=" ".join(notes), wide=True)


def _validation(rows: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    names = dict.fromkeys(
        name for row in rows for name in row if name.startswith("validation/") and name.count("/") == 2
    )
    charts = {}
    for metric, title, unit in (
        ("loss", "Validation loss by domain", "nats per token"),
        ("bits_per_byte", "Bits per byte by domain", "bits per byte of text"),
    ):
        domains = [name.split("/")[1] for name in names if name.endswith(f"/{metric}")]
        lines = [
            Line(domain, series(rows, f"validation/{domain}/{metric}"), colour=number, dash=number // COLOURS)
            for number, domain in enumerate(domains)
        ]
        # The mean of one domain is that domain, and the first chart shows it.
        if lines and not (metric == "loss" and len(lines) == 1):
            charts[f"validation/{metric}"] = Chart(title, unit, lines)
    return charts


def _tasks(rows: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    charts = {}
    for name in dict.fromkeys(
        name for row in rows for name in row if name.startswith("task/") and name.count("/") == 2
    ):
        _, task, metric = name.split("/")
        low, high = series(rows, f"{name}/low"), series(rows, f"{name}/high")
        band = low.steps.size > 0 and np.array_equal(low.steps, high.steps)
        line = Line(metric, series(rows, name), low=low if band else None, high=high if band else None)
        words = metric.replace("_", " ")
        charts[name] = Chart(task, words, [line], note="Band: 95 % interval over items." if band else "")
    return charts


def _optimization(good: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    norm = series(good, "gradient_norm")
    positive = norm.values[np.isfinite(norm.values) & (norm.values > 0)]
    wide_range = positive.size > 0 and positive.max() > 30 * np.median(positive)
    charts = {
        "lr": Chart("Learning rate", "learning rate", [Line("learning rate", series(good, "lr"))], number=".3~g"),
        "gradient_norm": Chart("Gradient norm", "global norm before clipping", _with_mean(norm), log=bool(wide_range)),
    }
    names = dict.fromkeys(
        name for row in good for name in row if name.startswith("domain/") and name.endswith("/weight")
    )
    weights = {name.split("/")[1]: series(good, name) for name in names}
    if any(np.ptp(weight.values) > 1e-6 for weight in weights.values()):
        lines = [
            Line(name, weight, colour=number, dash=number // COLOURS)
            for number, (name, weight) in enumerate(weights.items())
        ]
        charts["weights"] = Chart("Domain weights", "share of the stream", lines)
    return charts


def _speed(timing: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    speed, mfu = series(timing, "tokens_per_second"), series(timing, "mfu")
    top = float(np.nanmax(speed.values, initial=0.0))
    charts = {"speed": Chart("Throughput", "tokens per second", _with_mean(speed), number=".3~s", limits=(0.0, top))}
    if mfu.steps.size:
        percent = Series(mfu.steps, 100 * mfu.values)
        highest = float(np.nanmax(percent.values, initial=0.0))
        title, unit = "Model FLOPs utilisation", "percent of the hardware's peak"
        charts["mfu"] = Chart(title, unit, _with_mean(percent), number=".1f", limits=(0.0, highest))
    return charts


def _others(rows: Sequence[dict[str, Any]], timing: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    """Figures of probes and of parts that record their own: each in a chart of its own, since units differ."""
    charts = {}
    for source in (rows, timing):
        for name in dict.fromkeys(name for row in source for name in row):
            known = name in _NOT_CURVES | _NAMED or name.startswith(("validation/", "task/", "domain/"))
            if known or any(isinstance(row.get(name), str | bool | list | dict) for row in source):
                continue
            title = name.removeprefix("probe/").replace("/", " · ").replace("_", " ")
            charts[name] = Chart(title, name.rpartition("/")[2].replace("_", " "), _with_mean(series(source, name)))
    return charts


def _with_mean(found: Series) -> list[Line]:
    if found.steps.size < 100:
        return [Line("each step", found)]
    return [Line("each step", found, look="faint"), Line("running mean", smooth(found))]
