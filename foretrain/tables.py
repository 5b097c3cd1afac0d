"""Tables for people: listings, comparisons and the end of a run, for `Terminal.show`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from foretrain import units

STATUS_STYLES = {
    "done": "good",
    "running": "cyan",
    "paused": "note",
    "interrupted": "note",
    "failed": "bad",
    "planned": "label",
}


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str] | None = None,
    *,
    title: str = "",
    caption: str = "",
) -> Table:
    """Rows as a plain table: numbers to the right, missing ones as a dash; values may be rich texts.

    Args:
        rows: values by name.
        columns: headings by name, in order; unset: the names themselves.
        title: above the table.
        caption: below it.
    """
    headings = columns or {name: name.replace("_", " ") for row in rows for name in row}
    made = Table(
        title=Text(title, style="strong") if title else None,
        caption=Text(caption, style="label") if caption else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        header_style="label",
        pad_edge=False,
        show_edge=False,
        padding=(0, 3, 0, 0),
        border_style="bright_black",
    )
    for name, heading in headings.items():
        numbers = [row.get(name) for row in rows if row.get(name) is not None]
        right = bool(numbers) and all(_looks_numeric(value) for value in numbers)
        made.add_column(Text(heading), justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell(row.get(name)) for name in headings))
    return made


def cell(value: Any) -> Text:
    """A value as a table shows it; text is never read as markup."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text(units.MISSING, style="label")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(units.measured(value))
    return Text(str(value))


def status_text(status: str) -> Text:
    """A run's status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What `run_directory.list_runs` gave, for `foretrain ls`."""
    shown = []
    for row in rows:
        total = row.get("total_steps")
        step = int(row.get("step") or 0)
        shown.append(
            {
                "name": Text(str(row["name"]), style="strong"),
                "status": status_text(str(row["status"])),
                "steps": Text(f"{step:,}/{total:,}" if total and step != total else f"{step:,}"),
                "parameters": Text(units.count(row.get("parameters"))),
                "tokens": Text(units.count(row.get("tokens"))),
                "loss": row.get("loss"),
                "validation": row.get("validation/loss"),
                "time": Text(units.duration(row.get("seconds"))),
            }
        )
    return table(shown)


def comparison_tables(compared: Mapping[str, Any]) -> list[Table]:
    """What `comparison.compare` gave: figures with the best one marked, costs, and the settings that differ."""
    names = [run["name"] for run in compared["runs"]]
    figures = []
    for metric in compared["metrics"]:
        row: dict[str, Any] = {"": _figure_name(metric["name"])}
        for number, value in enumerate(metric["values"]):
            text = cell(value).copy()
            low, high = metric["low"][number], metric["high"][number]
            if low is not None and high is not None:
                text.append(f"  {units.measured(low)} to {units.measured(high)}", style="label")
            if metric["best"] == number:
                text.stylize("good")
            row[f"{number}"] = text
        figures.append(row)
    formats = {"tokens": units.count, "flops": units.flops, "seconds": units.duration, "peak_memory": units.size}
    costs = [
        {
            "": row["name"].replace("_", " "),
            **{f"{n}": Text(formats.get(row["name"], units.count)(value)) for n, value in enumerate(row["values"])},
        }
        for row in compared["cost"]
    ]
    settings = [
        {"": row["key"], **{f"{n}": _setting(value) for n, value in enumerate(row["values"])}}
        for row in compared["recipe"]
    ]
    headings = {"": "", **{f"{number}": name for number, name in enumerate(names)}}
    made = [table(figures, {**headings, "": "figure"}, title="Final figures")]
    made.append(table(costs, {**headings, "": "cost"}, title="Cost"))
    if settings:
        made.append(table(settings, {**headings, "": "setting"}, title="Settings that differ"))
    return made


def result_table(name: str, figures: Mapping[str, float], cost: Mapping[str, float | None]) -> Table:
    """The end of a run: its final figures and what it cost."""
    rows: list[dict[str, Any]] = []
    # The whole before its parts: validation/loss before validation/DOMAIN/loss.
    for figure, value in sorted(figures.items(), key=lambda item: (_family(item[0]), item[0].count("/"))):
        wanted = figure == "loss" or figure.startswith(("validation/", "task/"))
        if not wanted or figure.endswith(("/low", "/high")):
            continue
        row: dict[str, Any] = {"figure": _figure_name(figure), "value": Text(units.measured(value)), "interval": Text()}
        low, high = figures.get(f"{figure}/low"), figures.get(f"{figure}/high")
        if low is not None and high is not None:
            row["interval"] = Text(f"{units.measured(low)} to {units.measured(high)}", style="label")
        rows.append(row)
    columns = {"figure": "", "value": "final"}
    if any(row["interval"] for row in rows):
        columns["interval"] = "95 % interval"
    return table(rows, columns, title=name, caption=cost_line(cost))


def cost_line(cost: Mapping[str, float | None]) -> str:
    """What a run cost, in one line: `1,200 steps, 9.8M tokens, 3.1e14 FLOPs, 4 min 10 s, 812 MiB`."""
    parts = []
    if cost.get("steps") is not None:
        parts.append(f"{int(cost['steps'] or 0):,} steps")
    for key, text in (
        ("tokens", units.count(cost.get("tokens"), "tokens")),
        ("flops", units.flops(cost.get("flops"))),
        ("seconds", units.duration(cost.get("seconds"))),
        ("peak_memory", units.size(cost.get("peak_memory"))),
    ):
        if cost.get(key) is not None:
            parts.append(text)
    return ", ".join(parts)


def _family(name: str) -> int:
    return 0 if "/" not in name else 1 if name.startswith("validation/") else 2


def _figure_name(name: str) -> str:
    return (
        {"loss": "training loss", "validation/loss": "validation loss"}.get(name, name)
        .replace("/", " · ")
        .replace("_", " ")
    )


def _setting(value: Any) -> Text:
    """A setting as it was written: `0.001` and not `0.001000`."""
    return cell(value) if value is None or isinstance(value, bool) else Text(str(value))


def _looks_numeric(value: Any) -> bool:
    if isinstance(value, Text):
        return value.plain[:1] in "-0123456789" + units.MISSING
    return isinstance(value, int | float) and not isinstance(value, bool)
