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
    """Charts shown together, by name, below a heading of their own (or none); small ones three in a row."""

    title: str
    charts: list[str]
    small: bool = False


def run_charts(run: RunDirectory) -> tuple[dict[str, Chart], list[Group]]:
    """Every chart that the run's figures allow, by name, and how they are grouped."""
    rows, timing = run.metrics(), run.timing()
    skipped = Counter(str(row["skipped"]) for row in rows if row.get("skipped"))
    good = [row for row in rows if not row.get("skipped")]
    found: dict[str, Chart] = {"loss": _loss(good, rows, skipped)}
    groups = [Group("", ["loss"])]

    def add(title: str, charts: Mapping[str, Chart], small: bool = False) -> None:
        shown = {name: chart for name, chart in charts.items() if not chart.empty and name not in found}
        if shown:
            found.update(shown)
            groups.append(Group(title, list(shown), small))

    if found["loss"].empty:
        found, groups = {}, []
    add("On target and off target", _targets(rows))
    add("Validation", _validation(rows))
    add("Tasks", _tasks(rows))
    steering = steering_figures(run)
    for kind, names in steering.items():
        add(f"Steering: {kind}", {name: _small(rows, name) for name in names}, small=True)
    add("Optimization", _optimization(good))
    add("Speed", _speed(timing))
    add("Other figures", _others(rows, timing, list(steering)))
    return found, groups


def steering_kinds(run: RunDirectory) -> list[str]:
    """Kinds of the steering parts of the run's recipe."""
    listed = run.recipe().get("steering")
    parts = listed if isinstance(listed, list) else []
    return list(dict.fromkeys(str(part.get("kind") if isinstance(part, Mapping) else part) for part in parts))


def steering_figures(run: RunDirectory) -> dict[str, list[str]]:
    """Names of the figures that the run's steering parts recorded, by kind; what they measured of feedback comes last.

    Losses of feedback sets are not among them: they stand beside those of the domains.
    """
    names = dict.fromkeys(
        name for row in run.metrics() for name, value in row.items() if not isinstance(value, str | bool | list | dict)
    )
    found = {
        kind: [name for name in names if name.startswith(f"{kind}/") and not is_feedback_loss(name)]
        for kind in [*steering_kinds(run), "feedback"]
    }
    return {kind: mine for kind, mine in found.items() if mine}


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
    charts = {}
    for metric, title, unit in (
        ("loss", "Validation loss by domain", "nats per token"),
        ("bits_per_byte", "Bits per byte by domain", "bits per byte of text"),
    ):
        lines = _by_domain(rows, metric)
        # The mean of one domain is that domain, and the first chart shows it.
        if lines and not (metric == "loss" and len(lines) == 1):
            charts[f"validation/{metric}"] = Chart(title, unit, lines)
    return charts


def _targets(rows: Sequence[dict[str, Any]]) -> dict[str, Chart]:
    """What feedback asks for beside what it does not: the loss of every feedback set, and of every domain."""
    names = dict.fromkeys(name for row in rows for name in row if is_feedback_loss(name))
    lines: list[Line] = []
    for number, name in enumerate(names):
        raw = series(rows, name)
        many = raw.steps.size >= 100
        lines += [Line("each step", raw, number, look="faint")] if many and len(names) == 1 else []
        lines.append(Line(name.split("/")[1], smooth(raw) if many else raw, number, dash=number // COLOURS))
    if not lines:
        return {}
    means = any(line.series.steps.size >= 100 for line in lines)
    feedback = Chart(
        "Feedback loss", "nats per token", lines, note="On target; running means." if means else "On target."
    )
    note = "Off target, where a domain is not that of the feedback."
    domains = Chart("Validation loss by domain", "nats per token", _by_domain(rows, "loss"), note=note)
    return {"feedback/loss": feedback, "validation/loss": domains}


def is_feedback_loss(name: str) -> bool:
    """Whether a figure is the loss of a feedback set."""
    return name.startswith("feedback/") and name.count("/") == 2 and name.endswith("/loss")


def _small(rows: Sequence[dict[str, Any]], name: str) -> Chart:
    title = name.partition("/")[2].replace("/", " · ").replace("_", " ")
    return Chart(title, "", _with_mean(series(rows, name)), small=True)


def _by_domain(rows: Sequence[dict[str, Any]], metric: str) -> list[Line]:
    names = dict.fromkeys(
        name
        for row in rows
        for name in row
        if name.startswith("validation/") and name.count("/") == 2 and name.endswith(f"/{metric}")
    )
    return [
        Line(name.split("/")[1], series(rows, name), colour=number, dash=number // COLOURS)
        for number, name in enumerate(names)
    ]


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


def _others(rows: Sequence[dict[str, Any]], timing: Sequence[dict[str, Any]], shown: Sequence[str]) -> dict[str, Chart]:
    """Figures of probes and of parts that record their own: each in a chart of its own, since units differ.

    Those of the kinds in `shown`, and losses of feedback sets, have charts elsewhere.
    """
    charts = {}
    elsewhere = ("validation/", "task/", "domain/", "stages/", *(f"{kind}/" for kind in shown))
    for source in (rows, timing):
        for name in dict.fromkeys(name for row in source for name in row):
            known = name in _NOT_CURVES | _NAMED or name.startswith(elsewhere) or is_feedback_loss(name)
            if known or any(isinstance(row.get(name), str | bool | list | dict) for row in source):
                continue
            title = name.removeprefix("probe/").replace("/", " · ").replace("_", " ")
            charts[name] = Chart(title, name.rpartition("/")[2].replace("_", " "), _with_mean(series(source, name)))
    return charts


def _with_mean(found: Series) -> list[Line]:
    if found.steps.size < 100:
        return [Line("each step", found)]
    return [Line("each step", found, look="faint"), Line("running mean", smooth(found))]
