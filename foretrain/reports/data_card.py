"""The data card of a corpus that was built: what it is made from, what each stage dropped, and examples of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretrain import units
from foretrain.files import write_atomic
from foretrain.plain_yaml import format_yaml
from foretrain.reports.page import render
from foretrain.reports.scatter import Points, Scatter

Plain = Mapping[str, Any]


def write_card(folder: Path, manifest: Plain) -> Path:
    """Write `card.html` from what a manifest says; returns its path."""
    path = folder / "card.html"
    write_atomic(path, data_card(manifest))
    return path


def data_card(manifest: Plain) -> str:
    """The card as HTML."""
    stages, columns = manifest["stages"], [list(item) for item in manifest["columns"].items()]
    return render(
        "data_card.html",
        name=manifest["name"],
        summary=summary(manifest),
        headline=_headline(manifest),
        charts={"left": _left(stages)} if len(stages) > 1 else {},
        stages=_stages(stages),
        reasons=_reasons(stages),
        examples=_examples(stages),
        inputs=_inputs(manifest["inputs"]),
        columns={"columns": [("column", False), ("holds", False)], "rows": columns},
        build=format_yaml(manifest["build"]),
        facts=_facts(manifest),
    )


def summary(manifest: Plain) -> str:
    """What is left of what was read, and which stage dropped most, in two sentences."""
    stages = manifest["stages"]
    read, kept = stages[0]["kept"], manifest["documents"]
    told = f"{kept:,} of {read:,} documents are left ({units.share(kept / read)}), {units.size(manifest['bytes'])}."
    steps = [(each["documents"] - each["kept"], each["kind"]) for each in stages[1:]]
    count, kind = max(steps, default=(0, ""))
    return f"{told} {kind} dropped most: {count:,}." if count > 0 else told


def _headline(manifest: Plain) -> list[dict[str, str]]:
    stages, cost = manifest["stages"], manifest["cost"]
    read = stages[0]["kept"]
    figures = [
        ("Documents", units.count(manifest["documents"]), f"of {units.count(read)} read"),
        ("Text", units.size(manifest["bytes"]), f"of {units.size(stages[0]['kept_bytes'])}"),
        ("Stages", str(len(stages) - 1), "after reading"),
        ("Time", units.duration(cost["seconds"]), "on the clock"),
    ]
    return [{"label": label, "value": value, "detail": detail} for label, value, detail in figures]


def _left(stages: Sequence[Plain]) -> Scatter:
    names = [each["kind"] for each in stages]
    note = "Dots: documents; rings: bytes of text."
    places = list(range(len(stages)))
    kept = [each["kept"] / stages[0]["kept"] for each in stages]
    size = [each["kept_bytes"] / max(stages[0]["kept_bytes"], 1) for each in stages]
    said = [f"{name}: {units.share(value)} of the documents" for name, value in zip(names, kept, strict=True)]
    said_size = [f"{name}: {units.share(value)} of the text" for name, value in zip(names, size, strict=True)]
    points = [
        Points("documents", kept, places, said, colour=0),
        Points("bytes of text", size, places, said_size, colour=1, look="open"),
    ]
    rows = [(name, "") for name in names]
    return Scatter("What is left after each stage", "share of what was read", "", points, rows, note, from_zero=True)


def _stages(stages: Sequence[Plain]) -> dict[str, Any]:
    heads = ("stage", "documents", "left", "dropped", "text left", "time")
    columns = [(head, number > 0) for number, head in enumerate(heads)]
    rows = []
    for each in stages:
        gone = each["documents"] - each["kept"]
        share = f"{gone:,} ({units.share(gone / each['documents'])})" if each["documents"] else "0"
        time = units.duration(each["wall"])
        rows.append(
            [each["kind"], f"{each['documents']:,}", f"{each['kept']:,}", share, units.size(each["kept_bytes"]), time]
        )
    return {"columns": columns, "rows": rows}


def _reasons(stages: Sequence[Plain]) -> dict[str, Any]:
    rows: list[list[str]] = []
    for each in stages:
        counted = {**each["dropped"], **each["notes"]}
        if counted:
            rows += [[each["kind"]], *([reason, f"{count:,}"] for reason, count in counted.items())]
    return {"columns": [("reason", False), ("documents", True)], "rows": rows}


def _examples(stages: Sequence[Plain]) -> list[dict[str, Any]]:
    found = []
    for each in stages:
        by_reason: dict[str, list[Plain]] = {}
        for example in each["examples"]:
            by_reason.setdefault(example["reason"], []).append(example)
        found += [
            {"stage": each["kind"], "reason": reason, "count": each["dropped"].get(reason, 0), "documents": documents}
            for reason, documents in by_reason.items()
        ]
    return found


def _inputs(inputs: Sequence[Plain]) -> dict[str, Any]:
    rows = [[str(name), str(content)] for each in inputs for name, content, *_ in each["inputs"]]
    return {"columns": [("input", False), ("hash of its content", False)], "rows": rows}


def _facts(manifest: Plain) -> list[tuple[str, str]]:
    return [
        ("Hash of the documents", manifest["hash"]),
        ("Hash of inputs and settings", manifest["build_hash"]),
        *((name, value) for name, value in manifest["software"].items()),
    ]
