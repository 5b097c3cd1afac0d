"""The report of one run: what was run, what came out, what it cost, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foretrain import units
from foretrain.files import write_atomic
from foretrain.reports.curves import axes, run_charts
from foretrain.reports.forecasts import forecast_charts, forecast_table
from foretrain.reports.page import render
from foretrain.reports.plots import smooth
from foretrain.reports.recipe_lines import recipe_lines
from foretrain.reports.run_tables import (
    cost_table,
    data_table,
    environment_rows,
    good_loss,
    power_of_ten,
    results_table,
    steering_table,
    task_metrics,
)
from foretrain.reports.stage_matrix import stage_matrix
from foretrain.reports.token_values import shown
from foretrain.run_directory import RunDirectory, Series, by_domain

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
    forecasts = forecast_charts(run)
    recipe = recipe_lines(run)
    return render(
        "run.html",
        name=run.name,
        status=status,
        verdict=_verdict(run, plan, cost),
        notice=_notice(run, plan, status, cost),
        headline=_headline(run, plan, cost),
        charts={**charts, **forecasts},
        groups=groups,
        forecasts=list(forecasts),
        forecast_table=forecast_table(run),
        axes=axes(run),
        pictures=shown(run.pictures()),
        steering=steering_table(run),
        stages=stage_matrix(run, plan),
        results=results_table(run),
        cost=cost_table(run, plan, cost),
        data=data_table(plan),
        samples=run.samples()[:_MOST_SAMPLES],
        environment=environment_rows(run.environment()),
        recipe=recipe,
        chosen=any(marked for _, marked in recipe),
    )


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
        "paused": f"The run was asked to stop for now at {place}. The same command goes on with it.",
        "running": f"The run was still going on when this report was made, at {place}.",
        "planned": "The run has not started; nothing is measured yet.",
    }.get(status, "")


def _headline(run: RunDirectory, plan: Mapping[str, Any], cost: Mapping[str, float | None]) -> list[dict[str, str]]:
    figures: list[dict[str, str]] = []

    def add(label: str, value: str, detail: str = "") -> None:
        if value != units.MISSING:
            figures.append({"label": label, "value": value, "detail": detail})

    final = run.final()
    domains, losses = by_domain(final, "bits_per_byte"), by_domain(final)
    add("Validation loss", units.measured(final.get("validation/loss")), _listed_by_domain(losses) or "nats per token")
    add("Bits per byte", units.measured(_bits_per_byte(run, plan)), _listed_by_domain(domains) or "of validation text")
    if "validation/loss" not in final:
        add("Training loss", units.measured(smooth(good_loss(run)).last), "nats per token, running mean")
    for task, metric, name in task_metrics(final)[:_MOST_TASKS]:
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


def _listed_by_domain(values: Mapping[str, float]) -> str:
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


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
