"""The report of a study: which idea helps, by how much, at what cost, and how sure that is, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from foretrain import units
from foretrain.files import write_atomic
from foretrain.reports.page import render
from foretrain.reports.run_tables import environment_rows, power_of_ten
from foretrain.reports.study_charts import cost_charts, verdict_charts
from foretrain.reports.study_curves import axis_tables, curve_charts
from foretrain.reports.study_tables import (
    correction,
    cost_notes,
    cost_rows,
    failures,
    noise_rows,
    ordered,
    sentences,
    settings_rows,
    trial_rows,
    verdict_table,
)
from foretrain.reports.study_words import judged, summary
from foretrain.reports.token_values import shown
from foretrain.run_directory import RunDirectory
from foretrain.studies.directory import StudyDirectory

ENDED = ("done", "stopped")
_ROWS = 3
"""Rows of a picture that the report of a study shows."""
_VERDICTS = ("better", "worse", "no difference", "undecided")


def write_report(folder: Path | str) -> Path:
    """Write `report.html` into a study's directory, from what it holds; one that has not ended is reported as it is.

    Returns:
        The file's path.

    Raises:
        RequestError: the folder holds no study.
    """
    directory = StudyDirectory.open(folder)
    write_atomic(directory.report_path, study_report(folder))
    return directory.report_path


def study_report(folder: Path | str) -> str:
    """The report of the study in `folder` as HTML.

    Raises:
        RequestError: the folder holds no study.
    """
    directory = StudyDirectory.open(folder)
    told = directory.study()
    study = told or unfinished(directory)
    counted = _counted(directory, study)
    verdicts, groups = verdict_charts(study) if told else ({}, [])
    costs = cost_charts(study) if told else {}
    unit = str((study.get("match") or {}).get("unit") or "steps")
    curves, curve_groups = curve_charts(counted, study["metrics"], study["baseline"], unit)
    axes, tables = axis_tables(counted)
    missing = [arm for arm in study["arms"] if arm not in counted]
    return render(
        "study.html",
        name=directory.name,
        ended=bool(told),
        question=str(directory.planned().get("question") or ""),
        verdict=summary(study) if told else "",
        notice="" if told else _notice(study),
        headline=_headline(study) if told else [],
        charts={**verdicts, **costs, **curves},
        groups=groups,
        costs=list(costs),
        curve_groups=curve_groups,
        curve_note=_curve_note(counted, missing) if curves else "",
        axes=axes,
        tables=tables,
        pictures=_pictures(directory, study),
        verdicts=verdict_table(study, ordered(study)),
        correction=correction(study),
        sentences=sentences(study),
        second=verdict_table(study, study.get("second") or []),
        cost=cost_rows(study),
        cost_notes=cost_notes(study) if told else [],
        settings=settings_rows(study),
        failures=failures(study),
        noise=noise_rows(study) if told else {"rows": []},
        trials=trial_rows(study, _reports(directory, study)),
        notes=[str(note) for note in study.get("notes") or []],
        environment=environment_rows(directory.environment()),
        file=directory.text().rstrip(),
    )


def unfinished(directory: StudyDirectory) -> dict[str, Any]:
    """What the trials of a study without verdicts show so far, in the form of `study.json`."""
    planned, begun = directory.planned(), directory.trials()
    asked = planned.get("metrics")
    metrics = {
        str(name): {"figure": str((metric or {}).get("figure") or name), **(metric or {})}
        for name, metric in (asked.items() if isinstance(asked, Mapping) else ())
    }
    arms = list(dict.fromkeys([*(planned.get("arms") or {}), *begun]))
    found = {}
    for arm in arms:
        values: dict[str, dict[str, float]] = {name: {} for name in metrics}
        trials = []
        for seed in begun.get(arm, []):
            run = directory.trial(arm, seed)
            status, final = run.status(), run.final()
            error = (run.result() or {}).get("error")
            path = run.path.relative_to(directory.path).as_posix()
            trials.append({"seed": seed, "status": status, "path": path, "error": error, **run.cost()})
            for name, metric in metrics.items():
                if status in ENDED and metric["figure"] in final:
                    values[name][str(seed)] = final[metric["figure"]]
        failed = sum(trial["status"] == "failed" for trial in trials)
        told = {name: {"values": known} for name, known in values.items()}
        found[arm] = {"changes": [], "failed": failed, "metrics": told, "trials": trials}
    seeds = planned.get("seeds") or sorted({seed for known in begun.values() for seed in known})
    baseline = str(planned.get("baseline") or next(iter(arms), ""))
    match = {"unit": planned.get("match") or "flops"}
    return {"baseline": baseline, "seeds": seeds, "metrics": metrics, "arms": found, "match": match}


def _counted(directory: StudyDirectory, study: Mapping[str, Any]) -> dict[str, dict[int, RunDirectory]]:
    """The trials whose curves are drawn: those that ended, or else all that measured something."""
    counted: dict[str, dict[int, RunDirectory]] = {}
    for arm, found in study["arms"].items():
        trials = found.get("trials") or []
        ended = [trial for trial in trials if trial["status"] in ENDED]
        runs = {trial["seed"]: directory.curves(trial["path"]) for trial in ended or trials}
        measured = {seed: run for seed, run in runs.items() if run.metrics()}
        if measured:
            counted[arm] = measured
    return counted


def _pictures(directory: StudyDirectory, study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pictures of every arm that has some: those of its first trial, by seed, that has."""
    found = []
    for arm, told in study["arms"].items():
        for trial in sorted(told.get("trials") or [], key=lambda trial: trial["seed"]):
            views = shown(directory.curves(trial["path"]).pictures(), _ROWS)
            if views:
                found.append({"name": arm, "seed": trial["seed"], "pictures": views})
                break
    return found


def _curve_note(counted: Mapping[str, Mapping[int, RunDirectory]], missing: list[str]) -> str:
    several = any(len(runs) > 1 for runs in counted.values())
    text = (
        "Means over the seeds; bands: ± 1 standard deviation between seeds."
        if several
        else "One seed an arm: no bands."
    )
    text += " Trials that did not end are left out."
    return text + (f" No curves of {', '.join(missing)}." if missing else "")


def _notice(study: Mapping[str, Any]) -> str:
    trials = [trial for arm in study["arms"].values() for trial in arm["trials"]]
    done = sum(trial["status"] in ENDED for trial in trials)
    planned = len(study["arms"]) * len(study["seeds"])
    return (
        f"This study has not ended: {done} of {planned} trials are done, and there are no verdicts yet. The command "
        "that started it goes on where it stood."
    )


def _headline(study: Mapping[str, Any]) -> list[dict[str, str]]:
    figures: list[dict[str, str]] = []

    def add(label: str, value: str, detail: str = "") -> None:
        if value != units.MISSING:
            figures.append({"label": label, "value": value, "detail": detail})

    names, totals, match = judged(study), study.get("totals") or {}, study.get("match") or {}
    verdicts = [row.get("verdict") for row in study.get("contrasts") or [] if row["metric"] in names]
    for verdict in _VERDICTS:
        if verdicts.count(verdict):
            add(
                f"{verdict[0].upper()}{verdict[1:]}",
                str(verdicts.count(verdict)),
                f"of {units.count(len(verdicts), 'comparisons')}",
            )
    seeds = f"{units.count(len(study['seeds']), 'seeds')} each"
    arms = [arm for arm in study["arms"].values() if not arm.get("control_for")]
    add("Arms", str(len(arms)), f"{seeds}; baseline {study['baseline']}")
    if match.get("budget") and match.get("unit") not in (None, "none"):
        flops = match["unit"] == "flops"
        value = power_of_ten(match["budget"]) if flops else units.count(match["budget"])
        add("Budget of a run", value, f"{'FLOPs' if flops else match['unit']}, matched")
    failed = sum(arm.get("failed") or 0 for arm in study["arms"].values())
    add("Trials", units.count(totals.get("trials")), f"{failed} failed" if failed else "")
    saved = totals.get("saved_flops")
    add(
        "FLOPs in all",
        power_of_ten(totals.get("flops")),
        f"{power_of_ten(saved)} saved by stopping early" if saved else "",
    )
    add("Training time", units.duration(totals.get("seconds")), "sum over trials")
    return figures


def _reports(directory: StudyDirectory, study: Mapping[str, Any]) -> dict[str, str]:
    """Addresses of the trials' own reports, relative to this one."""
    paths = [str(trial["path"]) for arm in study["arms"].values() for trial in arm.get("trials") or []]
    return {path: quote(f"{path}/report.html") for path in paths if (directory.path / path / "report.html").is_file()}
