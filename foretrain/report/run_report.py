"""The report of one run: what was run, what came out, what it cost, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foretrain import units
from foretrain.comparison import flat
from foretrain.files import write_atomic
from foretrain.report.curves import axes, run_charts
from foretrain.report.page import render
from foretrain.report.plots import smooth
from foretrain.report.recipe_lines import recipe_lines
from foretrain.run_directory import RunDirectory, Series

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_MOST_SAMPLES = 12
_MOST_TASKS = 4


def write_report(run: RunDirectory) -> Path:
    """Write `report.html` into the run's directory, from what it holds; a run that has not ended is reported as it is.

    Returns:
        The file's path.
    """
    write_atomic(run.report_path, run_report(run))
    return run.report_path


def run_report(run: RunDirectory) -> str:
    """The report as HTML."""
    plan, status, cost = run.plan(), run.status(), run.cost()
    charts, groups = run_charts(run)
    recipe = recipe_lines(run)
    return render(
        "run.html",
        name=run.name,
        status=status,
        verdict=_verdict(run, plan, cost),
        notice=_notice(run, plan, status, cost),
        headline=_headline(run, plan, cost),
        charts=charts,
        groups=groups,
        axes=axes(run),
        results=_results(run),
        cost=_cost(run, plan, cost),
        data=_data(plan),
        samples=run.samples()[:_MOST_SAMPLES],
        environment=_environment(run.environment()),
        recipe=recipe,
        chosen=any(marked for _, marked in recipe),
    )


def power_of_ten(value: float | None) -> str:
    """`2.4 × 10¹⁴`."""
    if value is None:
        return units.MISSING
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}" if value >= 1e6 else f"{value:.0f}"


def _verdict(run: RunDirectory, plan: Mapping[str, Any], cost: Mapping[str, float | None]) -> str:
    """What was run and what came of it, in two sentences."""
    model = plan.get("model") or {}
    size = f"{units.count(plan['parameters'])}-parameter " if plan.get("parameters") else ""
    article = (
        "An" if size.startswith("8") or (not size and str(model.get("type", "")).startswith(tuple("aeio"))) else "A"
    )
    text = f"{article} {size}{model.get('type') or 'model'}"
    parent = plan.get("parent")
    if isinstance(parent, Mapping) and parent.get("run"):
        text += f", continued from {parent.get('name') or Path(str(parent['run'])).name}"
        text += f" at step {parent['step']:,}," if isinstance(parent.get("step"), int) else ","
    if cost["tokens"]:
        text += f" trained on {units.count(cost['tokens'], 'tokens')}"
        weights: Mapping[str, float] = plan.get("weights") or {}
        named = [f"{name} ({100 * weight:.0f} %)" if len(weights) > 1 else name for name, weight in weights.items()]
        text += f" of {_listed(named)}" if 0 < len(named) <= 6 else f" of {len(named)} domains" if named else ""
        took = units.duration(cost["seconds"]).replace(" ", "\u00a0")
        text += f" in {took}" if cost["seconds"] else ""
    text += "."
    name, what = "validation/loss", "Validation loss"
    if not np.isfinite(run.series(name).values).any():
        name, what = "loss", "Training loss"
    loss = run.series(name)
    finite = loss.values[np.isfinite(loss.values)]
    if finite.size > 1:
        first, last = float(finite[0]), run.final().get(name, float(finite[-1]))
        went = "fell" if last < first else "rose"
        text += f" {what} {went} from {units.measured(first)} to {units.measured(last)} nats per token"
        bits = _bits_per_byte(run, plan)
        text += f" ({units.measured(bits)} bits per byte)." if bits is not None and what[0] == "V" else "."
    return text


def _notice(run: RunDirectory, plan: Mapping[str, Any], status: str, cost: Mapping[str, float | None]) -> str:
    step, total = int(cost["steps"] or 0), plan.get("total_steps")
    place = f"step {step:,} of {total:,}" if total else f"step {step:,}"
    if status == "failed":
        told = (run.result() or {}).get("error")
        return f"The run failed at {place}." + (f" {told}" if told else "")
    return {
        "interrupted": f"The run was interrupted at {place}. The command that started it resumes it.",
        "running": f"The run was still going on when this report was made, at {place}.",
        "planned": "The run has not started; nothing is measured yet.",
    }.get(status, "")


def _headline(run: RunDirectory, plan: Mapping[str, Any], cost: Mapping[str, float | None]) -> list[dict[str, str]]:
    figures: list[dict[str, str]] = []

    def add(label: str, value: str, detail: str = "") -> None:
        if value != units.MISSING:
            figures.append({"label": label, "value": value, "detail": detail})

    final = run.final()
    domains = {
        name.split("/")[1]: value
        for name, value in final.items()
        if name.count("/") == 2 and name.endswith("/bits_per_byte")
    }
    losses = {
        name.split("/")[1]: value
        for name, value in final.items()
        if name.startswith("validation/") and name.count("/") == 2 and name.endswith("/loss")
    }
    add("Validation loss", units.measured(final.get("validation/loss")), _by_domain(losses) or "nats per token")
    add("Bits per byte", units.measured(_bits_per_byte(run, plan)), _by_domain(domains) or "of validation text")
    if "validation/loss" not in final:
        add("Training loss", units.measured(smooth(_good_loss(run)).last), "nats per token, running mean")
    for task, metric, name in _task_metrics(final)[:_MOST_TASKS]:
        low, high = final.get(f"{name}/low"), final.get(f"{name}/high")
        interval = (
            f", 95 %: {units.measured(low)} to {units.measured(high)}" if low is not None and high is not None else ""
        )
        add(task, units.measured(final[name]), metric.replace("_", " ") + interval)
    per_step = plan.get("tokens_per_step")
    steps = int(cost["steps"] or 0)
    add(
        "Tokens",
        units.count(cost["tokens"]),
        f"{steps:,} step{'' if steps == 1 else 's'}" + (f" of {per_step:,}" if per_step else ""),
    )
    add("Training FLOPs", power_of_ten(cost["flops"]))
    add("Time", units.duration(cost["seconds"]))
    speed, mfu = _median(run.series("tokens_per_second")), _median(run.series("mfu"))
    add(
        "Tokens per second",
        units.count(speed),
        "median" + (f", {units.share(mfu)} of peak FLOPs" if mfu is not None else ""),
    )
    add("Parameters", units.count(plan.get("parameters")), _shape(plan.get("model") or {}))
    return figures


def _results(run: RunDirectory) -> dict[str, Any]:
    final, result = run.final(), run.result() or {}
    rows: list[list[str]] = []
    good = _good_loss(run)
    if np.isfinite(good.values).any():
        first = float(good.values[np.isfinite(good.values)][0])
        rows.append(["training loss", units.measured(first), units.measured(smooth(good).last), "", ""])
    # The whole before its parts.
    validation = sorted((name for name in final if name.startswith("validation/")), key=lambda name: name.count("/"))
    tasks = [name for _, _, name in _task_metrics(final, every=True)]
    for name in [*validation, *tasks]:
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


def _cost(run: RunDirectory, plan: Mapping[str, Any], cost: Mapping[str, float | None]) -> dict[str, Any]:
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


def _data(plan: Mapping[str, Any]) -> dict[str, Any]:
    domains: Mapping[str, Any] = plan.get("domains") or {}
    weights: Mapping[str, float] = plan.get("weights") or {}
    rows = []
    for name, splits in domains.items():
        for split, counts in splits.items():
            share = f"{100 * weights[name]:.1f} %" if split == "train" and name in weights else ""
            numbers = [_whole(counts.get("documents")), _whole(counts.get("tokens"))]
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


def _environment(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def _task_metrics(final: Mapping[str, float], every: bool = False) -> list[tuple[str, str, str]]:
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


def _bits_per_byte(run: RunDirectory, plan: Mapping[str, Any]) -> float | None:
    """Bits per byte over the mixture: the domains' mean by their weights, as `validation/loss` is."""
    final, weights = run.final(), plan.get("weights") or {}
    found = {
        name: final[f"validation/{name}/bits_per_byte"]
        for name in weights
        if f"validation/{name}/bits_per_byte" in final
    }
    total = sum(weights[name] for name in found)
    if not found:
        return None
    if total == 0:
        return sum(found.values()) / len(found)
    return sum(weights[name] * value for name, value in found.items()) / total


def _good_loss(run: RunDirectory) -> Series:
    skipped = {row["step"] for row in run.metrics() if row.get("skipped")}
    found = run.series("loss")
    keep = np.array([step not in skipped for step in found.steps.tolist()], dtype=bool)
    return Series(found.steps[keep], found.values[keep])


def _by_domain(values: Mapping[str, float]) -> str:
    return (
        ", ".join(f"{name} {units.measured(value)}" for name, value in values.items()) if 1 < len(values) <= 4 else ""
    )


def _shape(model: Mapping[str, Any]) -> str:
    parts = [f"{model[key]} {word}" for key, word in (("layers", "layers"),) if key in model]
    parts += [f"{word} {model[key]:,}" for key, word in (("width", "width"), ("context", "context")) if key in model]
    return ", ".join(parts)


def _median(found: Series) -> float | None:
    values = found.values[np.isfinite(found.values)]
    return float(np.median(values)) if values.size else None


def _whole(number: float | None) -> str:
    return units.MISSING if number is None else f"{int(number):,}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _plain(value: Any) -> str:
    return units.MISSING if value is None or value in ([], {}) else str(value)
