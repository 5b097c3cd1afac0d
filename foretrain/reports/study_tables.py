"""The tables of a study's report: verdicts, costs, settings, noise, trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from foretrain import units
from foretrain.reports.run_tables import power_of_ten
from foretrain.reports.study_words import (
    Row,
    compact,
    difference,
    interval,
    judged,
    metric_title,
    metric_words,
    noise_units,
    pair_words,
    relative,
    rows_of,
    signed,
    verdict_words,
)

Table = dict[str, Any]
_POWER = 0.8


def verdict_table(study: Row, contrasts: Sequence[Row]) -> Table:
    """One row for each comparison, below a heading for each metric; the verdict has its own style."""
    columns = [
        ("arm", False),
        ("verdict", False),
        ("difference", True),
        ("95 % interval", True),
        ("relative", True),
        ("in seed noise", True),
        ("p, corrected", True),
        ("seeds", True),
    ]
    rows: list[list[Any]] = []
    shown = ""
    for row in contrasts:
        if row["metric"] != shown:
            shown = row["metric"]
            rows.append([metric_title(shown, study["metrics"][shown])])
        share = relative(row)
        p = row.get("p_adjusted") if row.get("verdict") is not None else None
        rows.append(
            [
                pair_words(row, study["baseline"]),
                {"text": verdict_words(row), "look": str(row.get("verdict") or "").replace(" ", "-")},
                difference(row),
                interval(row),
                "" if share is None else f"{signed(100 * share, 2)} %",
                noise_units(row),
                "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001",
                str(len(row.get("seeds") or [])),
            ]
        )
    return _used(columns, rows)


def ordered(study: Row) -> list[Row]:
    """All contrasts: judged metrics first, comparisons with the baseline first."""
    names = [*judged(study), *(name for name in study["metrics"] if name not in judged(study))]
    return [row for name in names for row in rows_of(study, name)]


def sentences(study: Row) -> list[str]:
    """What the statistics say of every judged comparison, in full."""
    return [
        f"{pair_words(row, study['baseline'])}, {metric_words(row['metric'])}: {row['words']}"
        for row in [*ordered(study), *(study.get("second") or [])]
        if row.get("words") and row.get("verdict") is not None
    ]


def correction(study: Row) -> str:
    """How the verdicts came about, in words."""
    names = judged(study)
    count = sum(1 for row in study.get("contrasts") or [] if row["metric"] in names)
    level = f"{100 * study.get('alpha', 0.05):g} %"
    if not count:
        return ""
    text = (
        f"Differences are arm minus {study['baseline']} (or the arm named), paired by seed, with Student's t intervals."
    )
    if count == 1:
        return f"{text} One comparison was planned, so nothing is corrected; its rate of error is {level}."
    return (
        f"{text} Verdicts are corrected for the {count} planned comparisons (Holm): where nothing differs, the chance "
        f"that any of them says better or worse is at most {level}."
    )


def cost_rows(study: Row) -> Table:
    """What every arm cost: the mean of its trials, and what was paid once."""
    columns = [("arm", False), ("steps", True), ("tokens", True), ("FLOPs", True), ("one-off FLOPs", True)]
    columns += [("tuning FLOPs", True), ("time", True), ("peak memory", True), ("failed", True), ("stopped at", True)]
    rows = []
    for arm, found in study["arms"].items():
        count, stopped = len(found.get("trials") or []), found.get("stopped")
        failed = found.get("failed") or 0
        rows.append(
            [
                arm,
                units.MISSING if found.get("steps") is None else f"{found['steps']:,.0f}",
                units.count(found.get("tokens")),
                power_of_ten(found.get("flops")),
                power_of_ten(found["one_off_flops"]) if found.get("one_off_flops") else "",
                power_of_ten(found["tuning_flops"]) if found.get("tuning_flops") else "",
                units.duration(found.get("seconds")),
                units.size(found.get("peak_memory")),
                f"{failed} of {count}" if failed else "",
                f"{100 * stopped:.0f} %" if stopped else "",
            ]
        )
    return _used(columns, rows)


def cost_notes(study: Row) -> list[str]:
    """What the costs mean, how well the arms are matched, and what the study cost in all."""
    match, totals = study.get("match") or {}, study.get("totals") or {}
    notes = [
        "Figures are means over the trials of an arm, peak memory the largest; evaluations and probes are not counted."
    ]
    if match.get("unit") in (None, "none"):
        notes.append(f"The arms are not matched: {match.get('reason') or 'no reason was given'}")
    else:
        unit = {"flops": "FLOPs"}.get(match["unit"], match["unit"])
        largest = match.get("largest_difference")
        least = "" if largest is None else f"; they differ by {100 * largest:.2g} % at most"
        notes.append(f"The arms are matched in {unit}{least}." + (f" {match['reason']}" if match.get("reason") else ""))
    if totals.get("flops"):
        told = f"The study cost {power_of_ten(totals['flops'])} FLOPs in {units.count(totals.get('trials'), 'trials')}"
        told += f", {units.duration(totals['seconds'])} of training" if totals.get("seconds") else ""
        saved = totals.get("saved_flops")
        notes.append(told + (f"; stopping arms early saved {power_of_ten(saved)} FLOPs." if saved else "."))
    return notes


def settings_rows(study: Row) -> Table:
    """In which settings each arm differs from the baseline, resolved; and what was tuned."""
    columns = [("arm", False), ("setting", False), (str(study["baseline"]), False), ("this arm", False)]
    rows = []
    for arm, found in study["arms"].items():
        changes = [(key, _setting(before), _setting(after)) for key, before, after in found.get("changes") or []]
        tuned = found.get("tuned") or {}
        changes += [(f"{key} (tuned)", "", _setting(value)) for key, value in tuned.items()]
        for number, (key, before, after) in enumerate(changes):
            rows.append([arm if number == 0 else "", key, before, after])
        if not changes:
            rows.append([arm, "the baseline" if arm == study["baseline"] else "no setting of the recipe", "", ""])
    return {"columns": columns, "rows": rows}


def noise_rows(study: Row) -> Table:
    """The seed noise of each metric, the smallest difference that matters, and what the study could have seen."""
    columns = [("metric", False), ("seed noise (sd)", True), ("95 % interval", True), ("seeds", True)]
    columns += [("smallest that matters", True), ("could be seen", True), ("source", False)]
    rows = []
    for name, metric in study["metrics"].items():
        floor, smallest = (study.get("noise") or {}).get(name) or {}, metric.get("smallest")
        low, high = floor.get("low"), floor.get("high")
        seen = detectable(rows_of(study, name))
        rows.append(
            [
                metric_words(name),
                units.MISSING if floor.get("sd") is None else compact(floor["sd"]),
                "" if low is None or high is None else f"{compact(low)} to {compact(high)}",
                "" if floor.get("seeds") is None else str(floor["seeds"]),
                "" if smallest is None else compact(smallest),
                "" if seen is None else compact(seen),
                str(floor.get("source") or ""),
            ]
        )
    return _used(columns, rows)


def detectable(contrasts: Sequence[Row], alpha: float = 0.05) -> float | None:
    """The difference that a paired t-test finds four times out of five, for the median comparison; uncorrected.

    (t_{1 - alpha/2} + t_{0.8}) s / sqrt(n), n - 1 degrees of freedom, with s the deviation of the paired differences.
    """
    from scipy import stats

    found = []
    for row in contrasts:
        count, sd = len(row.get("seeds") or []), row.get("sd")
        if sd is not None and count > 1:
            reach = stats.t.ppf(1 - alpha / 2, count - 1) + stats.t.ppf(_POWER, count - 1)
            found.append(float(reach * sd / math.sqrt(count)))
    return sorted(found)[(len(found) - 1) // 2] if found else None


def trial_rows(study: Row, linked: Mapping[str, str]) -> Table:
    """Every trial: its seed, how it ended, each metric's value, and what it cost.

    Args:
        study: what `study.json` says.
        linked: addresses of trials' own reports, by `path`.
    """
    names = list(study["metrics"])
    columns = [("arm", False), ("seed", True), ("status", False), *((metric_words(name), True) for name in names)]
    columns += [
        ("steps", True),
        ("tokens", True),
        ("FLOPs", True),
        ("time", True),
        ("peak memory", True),
        ("report", False),
    ]
    rows = []
    for arm, found in study["arms"].items():
        for trial in found.get("trials") or []:
            values = [(found["metrics"].get(name) or {}).get("values", {}).get(str(trial["seed"])) for name in names]
            status = str(trial["status"])
            address = linked.get(str(trial.get("path")))
            rows.append(
                [
                    arm,
                    str(trial["seed"]),
                    {"text": status, "look": status},
                    *(units.measured(value) for value in values),
                    units.MISSING if trial.get("steps") is None else f"{trial['steps']:,.0f}",
                    units.count(trial.get("tokens")),
                    power_of_ten(trial.get("flops")),
                    units.duration(trial.get("seconds")),
                    units.size(trial.get("peak_memory")),
                    {"text": "report", "address": address} if address else "",
                ]
            )
    return _used(columns, rows)


def failures(study: Row) -> list[dict[str, str]]:
    """The trials that did not end, with what they said."""
    found = []
    for arm, told in study["arms"].items():
        for trial in told.get("trials") or []:
            if trial["status"] in ("failed", "refused", "interrupted") or trial.get("error"):
                error = str(trial.get("error") or "It left no message.")
                title = f"{arm}, seed {trial['seed']}"
                found.append(
                    {"title": title, "status": str(trial["status"]), "error": error, "path": str(trial["path"])}
                )
    return found


def _setting(value: Any) -> str:
    """A setting as a recipe would have it, on one line."""
    if value is None:
        return units.MISSING
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _used(columns: list[tuple[str, bool]], rows: list[list[Any]]) -> Table:
    """A table without its empty columns; rows of a single cell are headings."""
    whole = [row for row in rows if len(row) > 1]
    keep = [n for n in range(len(columns)) if n == 0 or any(row[n] not in ("", units.MISSING) for row in whole)]
    return {
        "columns": [columns[n] for n in keep],
        "rows": [[row[n] for n in keep] if len(row) > 1 else row for row in rows],
    }
