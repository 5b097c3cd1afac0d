"""The page of `foretrain flips`: both models on every task, and the items that flipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretrain import units
from foretrain.reports.page import render

COLUMNS = [("figure", False), ("value", True), ("95 % interval", True)]
ITEMS = [("item", True), ("flip", False), ("old", False), ("new", False), ("text", False)]
LONGEST = 600
"""Letters of an item that are shown."""


def flips_page(found: Mapping[str, Any]) -> str:
    """The page, from what `foretrain.flipping.compare_flips` gives."""
    tasks = [
        {"name": name, "metric": task["metric"].replace("_", " "), "figures": _figures(task), "items": _items(task)}
        for name, task in found["tasks"].items()
    ]
    return render("flips.html", old=found["old"], new=found["new"], tasks=tasks, columns=COLUMNS, item_columns=ITEMS)


def _figures(task: Mapping[str, Any]) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["items", f"{task['items']:,}", ""],
        ["old model", units.measured(task["old"]), ""],
        ["new model", units.measured(task["new"]), ""],
    ]
    named = {
        "negative flips": task["negative_flips"],
        "positive flips": task["positive_flips"],
        "change (positive less negative)": task["change"],
        "wrong in another way than before": task["wrong_otherwise"],
    }
    for name, measured in named.items():
        if measured is not None:
            low, high = measured["low"], measured["high"]
            interval = "" if low is None else f"{units.measured(low)} to {units.measured(high)}"
            rows.append([name, units.measured(measured["value"]), interval])
    for name in ("mean_gain", "mean_regression"):
        rows.append([name.replace("_", " ") + ", of items that flipped", units.measured(task[name]), ""])
    return rows


def _items(task: Mapping[str, Any]) -> list[list[Any]]:
    return [
        [
            str(row["item"]),
            {"text": row["flip"], "look": "worse" if row["flip"] == "negative" else "better"},
            _said(row["old_answer"], row["old"]),
            _said(row["new_answer"], row["new"]),
            row["text"][:LONGEST] + ("…" if len(row["text"]) > LONGEST else ""),
        ]
        for row in task["flipped"]
    ]


def _said(answer: str | None, value: float) -> str:
    """What a model answered, or what it was given for it."""
    return units.measured(value) if answer is None else f"{answer} ({'right' if value else 'wrong'})"
