"""The tables of a run's report: results, cost, data, environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from foretrain import units
from foretrain.comparison import flat
from foretrain.reports.curves import is_feedback_loss, steering_figures
from foretrain.reports.plots import smooth
from foretrain.run_directory import RunDirectory, Series

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def results_table(run: RunDirectory) -> dict[str, Any]:
    """First and final figures, with intervals and numbers of items if any; empty where nothing was measured."""
    final, result = run.final(), run.result() or {}
    rows: list[list[str]] = []
    good = good_loss(run)
    if np.isfinite(good.values).any():
        first = float(good.values[np.isfinite(good.values)][0])
        rows.append(["training loss", units.measured(first), units.measured(smooth(good).last), "", ""])
    # The whole before its parts.
    validation = sorted((name for name in final if name.startswith("validation/")), key=lambda name: name.count("/"))
    feedback = [name for name in final if is_feedback_loss(name)]
    tasks = [name for _, _, name in task_metrics(final, every=True)]
    for name in [*feedback, *validation, *tasks]:
        found = run.series(name)
        finite = found.values[np.isfinite(found.values)]
        low, high = final.get(f"{name}/low"), final.get(f"{name}/high")
        interval = f"{units.measured(low)} to {units.measured(high)}" if low is not None and high is not None else ""
        words = (
            "validation loss"
            if name == "validation/loss"
            else name.removeprefix("task/").replace("/", " · ").replace("_", " ")
        )
        first_text = units.measured(float(finite[0])) if finite.size > 1 else ""
        rows.append([words, first_text, units.measured(final[name]), interval, _items(result, name)])
    if not rows:
        return {}
    columns = [("", False), ("first", True), ("final", True), ("95 % interval", True), ("items", True)]
    keep = [number for number in range(len(columns)) if number < 1 or any(row[number] for row in rows)]
    note = "Losses in nats per token. The final training loss is its running mean."
    return {
        "columns": [columns[number] for number in keep],
        "rows": [[row[number] for number in keep] for row in rows],
        "note": note,
    }


def steering_table(run: RunDirectory) -> dict[str, Any]:
    """Last value and mean of every figure that the steering parts recorded; empty where there are none."""
    rows: list[list[str]] = []
    found = steering_figures(run)
    for kind, names in found.items():
        rows += [[kind]] if len(found) > 1 else []
        for name in names:
            values = run.series(name).values
            finite = values[np.isfinite(values)]
            if finite.size:
                told = [units.measured(float(finite[-1])), units.measured(float(finite.mean())), f"{finite.size:,}"]
                rows.append([name.partition("/")[2].replace("/", " · ").replace("_", " "), *told])
    if not any(len(row) > 1 for row in rows):
        return {}
    title = next(iter(found)) if len(found) == 1 else ""
    return {
        "columns": [(title, False), ("last", True), ("mean over the run", True), ("steps that have it", True)],
        "rows": rows,
    }


def cost_table(run: RunDirectory, plan: Mapping[str, Any], cost: Mapping[str, float | None]) -> dict[str, Any]:
    """What was planned beside what was spent."""
    skipped = sum(1 for row in run.metrics() if row.get("skipped"))
    minutes = (run.recipe().get("budget") or {}).get("minutes")
    per_token = cost["flops"] / cost["tokens"] if cost["flops"] and cost["tokens"] else None
    seconds = 60 * float(minutes) if isinstance(minutes, int | float) else None
    rows = [
        ["optimizer steps", _whole(plan.get("total_steps")), _whole(cost["steps"] or 0)],
        ["training tokens", _whole(plan.get("tokens")), _whole(cost["tokens"])],
        ["training FLOPs", power_of_ten(plan.get("flops")), power_of_ten(cost["flops"])],
        ["FLOPs per token", "", power_of_ten(per_token)],
        ["time", units.duration(seconds), units.duration(cost["seconds"])],
        ["peak memory", units.size(plan.get("memory_estimate")), units.size(cost["peak_memory"])],
    ]
    if skipped:
        rows.append(["skipped steps", "", f"{skipped:,}"])
    blank = [["" if text == units.MISSING else text for text in row] for row in rows]
    return {
        "columns": [("", False), ("planned", True), ("spent", True)],
        "rows": [row for row in blank if row[1] or row[2]],
    }


def data_table(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Documents, tokens and bytes of every domain and split; the hashes of all inputs; the notes of the plan."""
    domains: Mapping[str, Any] = plan.get("domains") or {}
    weights: Mapping[str, float] = plan.get("weights") or {}
    rows = []
    for name, splits in domains.items():
        for split, counts in splits.items():
            share = f"{100 * weights[name]:.1f} %" if split == "train" and name in weights else ""
            limit = f"{_whole(counts['unique'])} of " if "unique" in counts else ""
            whole = counts.get("kept_of", {})
            numbers = [
                limit + _whole(counts.get(unit)) + (f" kept of {_whole(whole[unit])}" if whole else "")
                for unit, limit in (("documents", ""), ("tokens", limit))
            ]
            size = units.size(counts.get("bytes"))
            rows.append([name if split == next(iter(splits)) else "", split, share, *numbers, size])
    columns = [
        ("domain", False),
        ("split", False),
        ("weight", True),
        ("documents", True),
        ("tokens", True),
        ("text", True),
    ]
    hashes = [(key.replace(".", " · "), _plain(value)) for key, value in flat(plan.get("hashes") or {}).items() if key]
    return {
        "columns": columns,
        "rows": rows,
        "hashes": hashes,
        "notes": [str(note) for note in plan.get("notes") or []],
    }


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, nested ones joined; lists of plain values in one row, sizes of memory in words."""

    def joined(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: joined(child) for key, child in value.items()}
        plain = isinstance(value, list) and not any(isinstance(child, Mapping | list) for child in value)
        return ", ".join(str(child) for child in value) if plain else value

    rows = []
    for key, value in flat(joined(environment)).items():
        memory = key.rpartition(".")[2] == "memory" and isinstance(value, int)
        words = units.size(value) if memory else _plain(value)
        if key and words not in ("", units.MISSING):
            rows.append((key.replace("_", " ").replace(".", " · "), words))
    return rows


def power_of_ten(value: float | None) -> str:
    """`2.4 × 10¹⁴`."""
    if value is None:
        return units.MISSING
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}" if value >= 1e6 else f"{value:.0f}"


def task_metrics(final: Mapping[str, float], every: bool = False) -> list[tuple[str, str, str]]:
    """(task, metric, name) of the task figures: the first metric of each task, or every one."""
    found: list[tuple[str, str, str]] = []
    for name in final:
        pieces = name.split("/")
        if pieces[0] == "task" and len(pieces) == 3 and (every or pieces[1] not in {task for task, _, _ in found}):
            found.append((pieces[1], pieces[2], name))
    return found


def _items(result: Mapping[str, Any], name: str) -> str:
    """Number of items behind a task's metric, where the result tells."""
    pieces = name.split("/")
    if pieces[0] != "task":
        return ""
    told = ((result.get("tasks") or {}).get(pieces[1]) or {}).get(pieces[2])
    items = told.get("items") if isinstance(told, Mapping) else None
    return f"{items:,}" if isinstance(items, int) else ""


def good_loss(run: RunDirectory) -> Series:
    """The training loss without the steps that were skipped."""
    skipped = {row["step"] for row in run.metrics() if row.get("skipped")}
    found = run.series("loss")
    keep = np.array([step not in skipped for step in found.steps.tolist()], dtype=bool)
    return Series(found.steps[keep], found.values[keep])


def _whole(number: float | None) -> str:
    return units.MISSING if number is None else f"{int(number):,}"


def _plain(value: Any) -> str:
    return units.MISSING if value is None or value in ([], {}) else str(value)
