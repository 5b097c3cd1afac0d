"""What `foretrain forecast` does, as calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from foretrain import units
from foretrain.errors import RequestError
from foretrain.forecasts import ledger as ledgers
from foretrain.forecasts.base import Fitted, Forecaster
from foretrain.forecasts.chinchilla import Chinchilla
from foretrain.forecasts.curves import Course, Curve, of_run, planned_rates, refuse_mixed
from foretrain.forecasts.ledger import LEVEL
from foretrain.forecasts.lr_annealing import LrAnnealing, fell
from foretrain.forecasts.power_law import PowerLaw
from foretrain.hashing import hash_data
from foretrain.parts import PartOf
from foretrain.plain_yaml import parse_yaml
from foretrain.reports.run_report import write_report
from foretrain.run_directory import RunDirectory
from foretrain.schedules.base import Schedule
from foretrain.section import read_section

_POINTS = 40


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    law: PartOf[Forecaster] | None = None
    schedule: PartOf[Schedule] | None = None


def forecast(
    runs: Sequence[RunDirectory | Path | str],
    *,
    law: Forecaster | Mapping[str, Any] | str | None = None,
    figure: str = "loss",
    schedule: Schedule | Mapping[str, Any] | str | None = None,
    to: int | None = None,
) -> dict[str, Any]:
    """Learn from all these runs, and predict the end of the last one: it may still be running.

    The forecast is kept in that run's ledger and shown in its report.

    Args:
        runs: run directories.
        law: a forecaster, its kind, or `{kind: ...}` as YAML; unset: `chinchilla` for runs of several sizes, else
            `lr_annealing` where a learning rate fell, else `power_law`.
        figure: what is predicted: `loss`, `validation/loss`, `validation/DOMAIN/loss`.
        schedule: another learning-rate schedule from the first step on: what would have come of it?
        to: another number of steps.

    Returns:
        The ledger's entry: `run`, `at`, `figure`, `law`, `constants`, `from`, `data` (hash), `seen`, `end`, `what_if`,
        `value`, `low`, `high` (90 %), `path` and `words`.

    Raises:
        RequestError: there is nothing to predict, or the runs do not tell.
    """
    opened = [run if isinstance(run, RunDirectory) else RunDirectory.open(run) for run in runs]
    if not opened:
        raise RequestError("foretrain forecast takes one or more runs; the last one's end is predicted.")
    curves = [of_run(run, figure) for run in opened]
    # After the runs: a law may be a plug-in of their recipes.
    named = _named(law, schedule)
    target, run = curves[-1], opened[-1]
    end = to or target.total
    refuse_mixed(curves)
    what_if = named.schedule is not None or end != target.total
    if not what_if and run.status() == "done":
        raise RequestError(
            f"{run.path} has ended, so there is nothing to predict of it. Say what else it might have been: "
            "--schedule, or --to another number of steps; or name a run last that still goes on."
        )
    first = 1 if what_if else target.last + 1
    steps = np.unique(np.linspace(first, end, _POINTS).round().astype(np.int64)) if end >= first else np.zeros(0, int)
    if not steps.size:
        raise RequestError(f"{run.path} has done all of its {end} steps; nothing is left to predict.")
    course = Course(
        target.name, target.steps, planned_rates(run, end, named.schedule), target.tokens, target.parameters
    )
    course = course.at(steps)
    chosen = named.law or _default(curves, course)
    if named.schedule is not None and not chosen.reads_rates:
        raise RequestError(
            f"{chosen.kind} looks at no learning rates: it says the same under any schedule. Take the law lr_annealing."
        )
    fitted = chosen.fit(curves)
    entry = _entry(run, curves, course, chosen, fitted)
    entry |= {"what_if": {"schedule": _plain(named.schedule), "steps": end} if what_if else None}
    entry["words"] = words(entry)
    ledgers.append(run, entry)
    write_report(run)
    return entry


def _entry(
    run: RunDirectory, curves: Sequence[Curve], course: Course, law: Forecaster, fitted: Fitted
) -> dict[str, Any]:
    values = fitted.predict(course)
    low, high = fitted.quantiles(course, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    path = {"values": values, "low": low, "high": high}
    if not all(np.isfinite(each).all() for each in path.values()):
        raise RequestError(f"The law {law.kind} gives no finite number for step {course.steps[-1]} of {run.path}.")
    return {
        "run": run.name,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "figure": curves[-1].figure,
        "law": law.model_dump(mode="json"),
        "constants": dict(fitted.constants),
        "from": [{"run": Path(curve.name).name, "steps": curve.last} for curve in curves],
        "data": hash_data([curve.digest() for curve in curves]),
        "seen": curves[-1].last,
        "end": int(course.steps[-1]),
        "value": float(values[-1]),
        "low": float(low[-1]),
        "high": float(high[-1]),
        "path": {"steps": course.steps.tolist(), **{name: each.tolist() for name, each in path.items()}},
    }


def _default(curves: Sequence[Curve], course: Course) -> Forecaster:
    """The law for what these curves tell."""
    if len({curve.parameters for curve in curves}) > 1:
        return Chinchilla()
    if any(fell(curve, curve.last) for curve in curves):
        return LrAnnealing()
    if fell(course, int(course.steps[-1])):
        raise RequestError(
            f"The learning rate of {course.name} falls later, and no run named here has seen one fall, so they do not "
            "tell what that is worth. Name a run first whose rate fell, or say --law power_law to leave it out."
        )
    return PowerLaw()


def _named(law: Any, schedule: Any) -> _Named:
    given: dict[str, Any] = {}
    for name, value in (("law", law), ("schedule", schedule)):
        try:
            given[name] = parse_yaml(value) if isinstance(value, str) else value
        except ValueError as error:
            raise RequestError(f"--{name} {value}: not valid YAML ({error}).") from error
    return read_section(_Named, given, "The request")


def _plain(schedule: Schedule | None) -> dict[str, Any] | None:
    return None if schedule is None else schedule.model_dump(mode="json")


def words(entry: Mapping[str, Any]) -> str:
    """A forecast in a sentence or two."""
    what_if, figure = entry["what_if"], entry["figure"].replace("/", " ")
    told = units.measured(entry["value"])
    between = f"90 % between {units.measured(entry['low'])} and {units.measured(entry['high'])}"
    others = len(entry["from"]) - 1
    seen = f"{entry['seen']:,} steps of it" + (f" and {others} other run{'s' if others > 1 else ''}" if others else "")
    if what_if:
        schedule = f" and the schedule {what_if['schedule']['kind']}" if what_if["schedule"] else ""
        head = f"With {what_if['steps']:,} steps{schedule}, {entry['run']} would come to a {figure} of {told}"
    else:
        head = f"{entry['run']} ends at step {entry['end']:,} with a {figure} of {told}"
    return f"{head}, {between}: by {entry['law']['kind']}, from {seen}."
