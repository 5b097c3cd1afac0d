"""The charts of what a study ended with: values by seed, differences with intervals, cost against quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foretrain import units
from foretrain.reports.curves import Group
from foretrain.reports.plots import COLOURS, Colour
from foretrain.reports.run_tables import power_of_ten
from foretrain.reports.scatter import Points, Scatter
from foretrain.reports.study_words import (
    Row,
    compact,
    difference,
    interval,
    metric_title,
    pair_words,
    rows_of,
    verdict_words,
)

_UNITS = {"loss": "nats per token", "bits_per_byte": "bits per byte of text"}
_WIDE_COSTS = 5.0


@dataclass(frozen=True)
class Look:
    """What tells an arm apart in every chart: colour, then dash and symbol where there are more arms than colours."""

    colour: Colour
    shape: int


def looks(arms: Sequence[str], baseline: str) -> dict[str, Look]:
    """The look of each arm: the baseline has the colour of the text, the others take the colours in their order."""
    others = [arm for arm in arms if arm != baseline]
    found = {arm: Look(number % COLOURS, number // COLOURS) for number, arm in enumerate(others)}
    return {arm: found.get(arm, Look("ink", 0)) for arm in arms}


def verdict_charts(study: Row) -> tuple[dict[str, Scatter], list[Group]]:
    """For every metric, the values of all seeds beside the differences with their intervals."""
    found: dict[str, Scatter] = {}
    groups = []
    for name, metric in study["metrics"].items():
        pair = {f"values/{name}": _values(study, name), f"differences/{name}": _differences(study, name)}
        shown = {key: chart for key, chart in pair.items() if not chart.empty}
        if shown:
            found |= shown
            note = "" if metric.get("judged", True) else ", not judged"
            groups.append(Group(titled(metric_title(name, metric)) + note, list(shown)))
    return found, groups


def cost_charts(study: Row) -> dict[str, Scatter]:
    """Cost against quality, for every judged metric (all of them, where none is judged)."""
    names = [name for name, metric in study["metrics"].items() if metric.get("judged", True)] or list(study["metrics"])
    charts = {f"cost/{name}": _cost(study, name) for name in names}
    return {name: chart for name, chart in charts.items() if not chart.empty}


def _values(study: Row, name: str) -> Scatter:
    """Each seed's value in each arm, the same seed joined, and the mean of each arm."""
    arms, style = study["arms"], looks(list(study["arms"]), study["baseline"])
    # Values at a share of the budget do not compare with those at its end, and would stretch the axis.
    stopped = [arm for arm, found in arms.items() if found.get("stopped")]
    told = {
        arm: (found["metrics"].get(name) or {}).get("values") or {} for arm, found in arms.items() if arm not in stopped
    }
    points = [
        Points(
            f"seed {seed}",
            [told[arm].get(str(seed)) for arm in told],
            list(range(len(told))),
            colour="muted",
            look="joined",
        )
        for seed in study["seeds"]
    ]
    rows = []
    for row, arm in enumerate(told):
        seeds = {seed: value for seed, value in told[arm].items() if value is not None}
        values = list(seeds.values())
        rows.append((arm, ""))
        if values:
            said = [f"{arm}, seed {seed}: {units.measured(value)}" for seed, value in seeds.items()]
            look = style[arm]
            points.append(Points(arm, values, [row] * len(values), said, look.colour, symbol=look.shape))
            mean = float(np.mean(values))
            told_mean = f"{arm}, mean of {units.count(len(values), 'seeds')}: {units.measured(mean)}"
            points.append(Points(arm, [mean], [row], [told_mean], look.colour, "bar"))
    note = "One dot a seed; thin lines join the same seed; the upright bar is the mean."
    note += _left_out(stopped)
    drawn = points if any(value is not None for point in points for value in point.x) else []
    return Scatter("Values by seed", _metric_unit(study, name), "", drawn, rows, note)


def _differences(study: Row, name: str) -> Scatter:
    """Differences with their intervals, the smallest difference that matters as a band around 0."""
    metric, style = study["metrics"][name], looks(list(study["arms"]), study["baseline"])
    found = [row for row in rows_of(study, name) if row.get("difference") is not None]
    points, rows = [], []
    adjusted = False
    for number, row in enumerate(found):
        look, at = style.get(row["arm"], Look(0, 0)), [row["difference"]]
        words = verdict_words(row)
        other = "" if row["against"] == study["baseline"] else f"against {row['against']}"
        rows.append((row["arm"], ": ".join(text for text in (other, row.get("verdict") or "") if text)))
        # What is not judged is in no family, so there is nothing to correct for.
        if row.get("adjusted") and row.get("verdict") is not None:
            adjusted = True
            points.append(Points("", at, [number], (), look.colour, "none", across=[tuple(row["adjusted"])], thick=1))
        bounds = [tuple(row["interval"])] if row.get("interval") else []
        said = f"{pair_words(row, study['baseline'])}: {difference(row)}"
        said += f" (95 %: {interval(row)}), {words}" if bounds else f", {words}"
        points.append(Points(row["arm"], at, [number], [said], look.colour, symbol=look.shape, across=bounds, thick=3))
    smallest = metric.get("smallest")
    way = "left" if metric.get("direction") == "lower" else "right"
    note = "Thick: 95 % interval." + (" Thin: the same, corrected for all planned comparisons." if adjusted else "")
    if smallest is not None:
        note += f" Shaded: differences smaller than {compact(smallest)}, too small to matter."
    title = f"Differences from {study['baseline']}"
    band = (-smallest, smallest) if smallest is not None else None
    return Scatter(title, f"difference (better is to the {way})", "", points, rows, note, band=band, zero=True)


def _cost(study: Row, name: str) -> Scatter:
    """What each arm costs in all, and how good it is; the arms that none beats on both are joined."""
    metric, style = study["metrics"][name], looks(list(study["arms"]), study["baseline"])
    sign = 1.0 if metric.get("direction") == "lower" else -1.0
    stopped = [arm for arm, found in study["arms"].items() if found.get("stopped")]
    known = {}
    for arm, found in study["arms"].items():
        mean = (found["metrics"].get(name) or {}).get("mean")
        if mean is not None and found.get("flops") and arm not in stopped:
            known[arm] = (total_flops(found), float(mean))
    front = [
        arm
        for arm, (cost, value) in known.items()
        if not any(
            other != (cost, value) and other[0] <= cost and sign * other[1] <= sign * value for other in known.values()
        )
    ]
    front.sort(key=lambda arm: known[arm])
    points = []
    if front:
        last = max(cost for cost, _ in known.values())
        path = [known[arm] for arm in front] + [(last, known[front[-1]][1])]
        points.append(
            Points(
                "Pareto front",
                [cost for cost, _ in path],
                [value for _, value in path],
                colour="muted",
                look="stairs",
                keyed=True,
            )
        )
    extra = False
    for arm, (cost, value) in known.items():
        found, look = study["arms"][arm], style[arm]
        own, spread = float(found["flops"]), (found["metrics"][name] or {}).get("sd")
        extra = extra or cost > own
        parts = [
            f"{key} {power_of_ten(amount)}"
            for key, amount in (("one-off", found.get("one_off_flops")), ("tuning", found.get("tuning_flops")))
            if amount
        ]
        said = f"{arm}: {units.measured(value)} for {power_of_ten(cost)} FLOPs" + (
            f" (of which {', '.join(parts)})" if parts else ""
        )
        points.append(
            Points(
                arm,
                [cost],
                [value],
                [said],
                look.colour,
                "dots" if arm in front else "open",
                look.shape,
                across=[(own, cost)] if cost > own else (),
                along=[(value - spread, value + spread)] if spread else (),
                keyed=True,
            )
        )
    note = "Filled: on the Pareto front. Upright: ± 1 standard deviation between seeds."
    note += " Level: what one-off costs and tuning add to the run's own cost." if extra else ""
    note += _left_out(stopped)
    costs = [cost for cost, _ in known.values()]
    wide = bool(costs) and max(costs) > _WIDE_COSTS * min(costs)
    scale = math.floor(math.log10(max(costs))) if costs else 0
    points = [point.scaled(10.0**-scale) for point in points]
    title = titled(metric_title(name, metric))
    unit = _metric_unit(study, name)
    label = f"{power_of_ten(10.0**scale).removeprefix('1.0 × ')} FLOPs of a run, all costs included"
    return Scatter(title, label, unit, points, note=note, log=wide, from_zero=not wide)


def _left_out(stopped: Sequence[str]) -> str:
    return f" Stopped early and so not shown: {', '.join(stopped)}." if stopped else ""


def total_flops(arm: Row) -> float:
    """FLOPs of one run of an arm, with all that had to be paid before it."""
    return float((arm.get("flops") or 0) + (arm.get("one_off_flops") or 0) + (arm.get("tuning_flops") or 0))


def _metric_unit(study: Row, name: str) -> str:
    metric = study["metrics"][name]
    return (
        "share of the baseline's budget"
        if metric.get("at") == "reached"
        else figure_unit(str(metric.get("figure") or name))
    )


def figure_unit(figure: str) -> str:
    """The unit of a figure, in words."""
    last = figure.rpartition("/")[2]
    return _UNITS.get(last, last.replace("_", " "))


def titled(words: str) -> str:
    """Words with a capital."""
    return f"{words[0].upper()}{words[1:]}"
