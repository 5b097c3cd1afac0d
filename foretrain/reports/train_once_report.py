"""The report of many interventions in one run: whether they disturb each other, the verdict of each, and the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretrain import units
from foretrain.files import read_json, write_atomic
from foretrain.reports.page import render
from foretrain.reports.run_tables import power_of_ten
from foretrain.reports.study_words import Row, compact, difference, interval, noise_units, verdict_words

Table = dict[str, Any]
_COLUMNS = [("intervention", False), ("verdict", False), ("difference", True), ("95 % interval", True)]
_COLUMNS += [("in seed noise", True), ("seeds", True)]


def write_report(folder: Path) -> Path:
    """Write `report.html` beside `train_once.json`, from what that says.

    Returns:
        The file's path.
    """
    path = folder / "report.html"
    parts = [part for part in ("check", "full") if (folder / part / "report.html").is_file()]
    write_atomic(path, train_once_report(read_json(folder / "train_once.json"), parts))
    return path


def train_once_report(once: Row, parts: Sequence[str] = ()) -> str:
    """The report as HTML.

    Args:
        once: what `train_once.json` says.
        parts: those of its studies (`check`, `full`) that have a report of their own in a folder of that name.
    """
    check, full, solo = once["check"], once["full"], once["solo"]
    return render(
        "train_once.html",
        name=once["name"],
        summary=summary(once),
        stopped=once["stopped"],
        headline=_headline(once),
        matrix=matrix(check) if check else None,
        words=check["words"] if check else [],
        verdicts=_verdicts(full) if full else None,
        solo=_solo(solo) if solo else None,
        cost=_cost(once["cost"]),
        parts=[{"text": f"{_PARTS[part]}: report", "address": f"{part}/report.html"} for part in parts],
    )


_PARTS = {"check": "Every short run of the interference test", "full": "Every full run"}


def summary(once: Row) -> str:
    """Whether the interventions can share a run, and what the run says, in two or three sentences."""
    names, check, full = once["interventions"], once["check"], once["full"]
    told = []
    if check is not None:
        pairs = [f"{acting} disturbs {read}" for acting, read in check["interacting"]]
        pairs += [f"{name} has another effect where all act" for name in check["changed"]]
        found = "; ".join(pairs) if pairs else f"none of the {len(names)} interventions was seen to disturb another"
        told.append(f"In the interference test, {found}.")
        if check["control"] is not None and not check["control"]["detected"]:
            told.append("It did not see its control, so it says little.")
    if full is not None:
        seen = [name for name, cell in full["verdicts"].items() if cell["verdict"] in ("better", "worse")]
        effects = f"{len(seen)} of {len(names)} interventions have an effect that is seen"
        told.append(
            f"In the one run, {effects}; on validation loss, all together: {verdict_words(full['validation'])}."
        )
    elif once["stopped"]:
        told.append("The full runs were left out: interventions that disturb each other cannot share a run.")
    return " ".join(told)


def matrix(check: Row) -> list[dict[str, Any]]:
    """Rows of the matrix: a name, and for each intervention that is read its cell.

    A cell has `value` (the difference), `detail` (the verdict), `look` (of the verdict), `own` (whether it stands on
    the diagonal) and `heat` (0 to 1: its size relative to the effect of the intervention itself).
    """
    names = check["interventions"]
    rows: list[tuple[str, Mapping[str, Row]]] = [(name, check["matrix"][name]) for name in names]
    rows.append(("all together", check["joint"]))
    if check["control"] is not None:
        rows.append((f"control, against {check['control']['disturbs']}", check["control"]["cells"]))
    own = {name: check["matrix"][name][name]["difference"] for name in names}
    acting = [*names, *[""] * (len(rows) - len(names))]
    return [
        {"name": title, "cells": [_heat(cells[read], own[read], acts == read) for read in names]}
        for acts, (title, cells) in zip(acting, rows, strict=True)
    ]


def _heat(cell: Row, own: float | None, diagonal: bool) -> dict[str, Any]:
    value = cell["difference"]
    heat = 0.0 if value is None or not own else min(1.0, abs(value / own))
    return {
        "value": difference(cell),
        "detail": cell["verdict"],
        "look": cell["verdict"].replace(" ", "-"),
        "own": diagonal,
        "heat": round(heat, 3),
        "title": cell["words"],
    }


def _row(name: str, cell: Row) -> list[Any]:
    return [
        name,
        {"text": verdict_words(cell), "look": cell["verdict"].replace(" ", "-")},
        difference(cell),
        interval(cell),
        noise_units(cell),
        str(len(cell["seeds"])),
    ]


def _verdicts(full: Row) -> Table:
    rows = [_row(name, cell) for name, cell in full["verdicts"].items()]
    return {"columns": _COLUMNS, "rows": [*rows, ["The model"], _row("validation loss", full["validation"])]}


def _solo(solo: Mapping[str, Row]) -> Table:
    columns = [*_COLUMNS, ("in deviations", True), ("below two", False)]
    rows = []
    for name, cell in solo.items():
        size = cell["deviations"]
        agrees = {True: "yes", False: "no", None: units.MISSING}[cell["agrees"]]
        rows.append([*_row(name, cell), units.MISSING if size is None else compact(size), agrees])
    return {"columns": columns, "rows": rows}


def _cost(cost: Row) -> Table:
    rows = [("Interference test, with the runs it begins from", power_of_ten(cost["check"]))]
    if cost["full"] is not None:
        rows.append(("Full runs", power_of_ten(cost["full"])))
        rows.append(("In all", power_of_ten(cost["flops"])))
        rows.append(("An untouched run and one for each intervention would be", power_of_ten(cost["separate"])))
    return {"columns": [("", False), ("FLOPs", True)], "rows": [list(row) for row in rows]}


def _headline(once: Row) -> list[dict[str, str]]:
    names, check, full, saved = once["interventions"], once["check"], once["full"], once["cost"]["saved"]
    figures = [("Interventions", str(len(names)), "in one run")]
    if check is not None:
        count, control = len(names) * (len(names) - 1), check["control"]
        figures.append(("Pairs that interact", str(len(check["interacting"])), f"of {count}"))
        figures.append(("Pairs that do not", str(len(check["safe"])), "no difference"))
        if control is not None:
            seen = "seen" if control["detected"] else "not seen"
            figures.append(("Control", seen, f"should disturb {control['disturbs']}"))
    if full is not None:
        figures.append(("Validation loss", difference(full["validation"]), "by all together"))
    if saved is not None and once["solo"] is None:
        figures.append(("Saved", units.share(saved), "of a run for each"))
    return [{"label": label, "value": value, "detail": detail} for label, value, detail in figures]
