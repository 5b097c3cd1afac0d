"""The words of a study: its metrics, differences and verdicts, as its report and the terminal say them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from foretrain import units
from foretrain.reports.run_tables import power_of_ten

Row = Mapping[str, Any]
MOST_TIMES = 10
"""Differences of more than so many times what they are against are not told as shares of it."""


def metric_words(name: str) -> str:
    """A metric as people say it: `validation loss`, `questions · accuracy`."""
    if name == "validation/loss":
        return "validation loss"
    return name.removeprefix("task/").replace("/", " · ").replace("_", " ")


def metric_title(name: str, metric: Row) -> str:
    """A metric with all that tells how its figures are read: `validation loss (lower is better)`.

    Where in the run it is read is said unless that is the end, and the figure where the metric has a name of its own.
    """
    way = f"{metric.get('direction') or 'lower'} is better"
    at = {
        "half": "half-way through the run",
        "best": "the best of its evaluations",
        "worst": "the worst of its evaluations",
        "reached": "when the baseline's best is reached",
    }
    figure = metric_words(str(metric.get("figure") or name))
    told = [figure if figure != metric_words(name) else "", at.get(metric.get("at", ""), "")]
    where = ", ".join(text for text in told if text)
    return f"{metric_words(name)} ({where}; {way})" if where else f"{metric_words(name)} ({way})"


def in_sentence(name: str, metric: Row) -> str:
    """A metric within a sentence: `validation loss`, or `best (validation loss)` where it has a name of its own."""
    figure = metric_words(str(metric.get("figure") or name))
    return metric_words(name) if figure == metric_words(name) else f"{metric_words(name)} ({figure})"


def judged(study: Row) -> list[str]:
    """Names of the metrics that get verdicts, in order."""
    return [name for name, metric in study["metrics"].items() if metric.get("judged", True)]


def relative(row: Row) -> float | None:
    """A difference as a share of what it is against; None where that is too near 0 for a share to say anything."""
    found = row.get("relative")
    return None if found is None or abs(found) >= MOST_TIMES else float(found)


def rows_of(study: Row, metric: str) -> list[Row]:
    """The contrasts of a metric, those with the baseline first."""
    found = [row for row in study.get("contrasts") or [] if row["metric"] == metric]
    return sorted(found, key=lambda row: row["against"] != study["baseline"])


def pair_words(row: Row, baseline: str) -> str:
    """`wsd`, or `wsd against heavy` where it is not compared with the baseline."""
    return row["arm"] if row["against"] == baseline else f"{row['arm']} against {row['against']}"


def decimals(row: Row) -> int | None:
    """As many decimals as give the half-width of the interval two digits; None where there is no interval."""
    bounds = row.get("interval")
    half = (bounds[1] - bounds[0]) / 2 if bounds else 0.0
    return min(max(1 - math.floor(math.log10(half)), 0), 6) if half > 1e-5 else None


def signed(value: float | None, places: int | None = None) -> str:
    """`+0.1021`, `−0.031`: a difference, with a minus as long as the plus."""
    if value is None:
        return units.MISSING
    size = units.measured(abs(value)) if places is None else f"{abs(value):.{places}f}"
    return f"{'−' if value < 0 else '+'}{size}" if float(size.replace(",", "")) else size


def difference(row: Row) -> str:
    """The difference, to the digits that its interval supports."""
    return signed(row.get("difference"), decimals(row))


def interval(row: Row, key: str = "interval") -> str:
    """`−0.036 to −0.026`; empty where there is none."""
    bounds = row.get(key)
    return " to ".join(signed(bound, decimals(row)) for bound in bounds) if bounds else ""


def noise_units(row: Row) -> str:
    """The difference as a multiple of the seed noise: `−2.6`; empty where the noise is not known."""
    value = row.get("in_noise")
    if value is None:
        return ""
    # Its sign is that of the difference, whether or not the number has one.
    return signed(math.copysign(abs(value), row.get("difference") or value), 1)


def verdict_words(row: Row) -> str:
    """The verdict, with what it leaves open: `no difference larger than 0.012`, `undecided: about 4 more seeds ...`."""
    verdict = row.get("verdict")
    if verdict is None:
        return "not judged"
    words = str(verdict)
    if verdict == "no difference" and row.get("smallest") is not None:
        words = f"no difference larger than {compact(row['smallest'])}"
    elif verdict == "undecided" and row.get("more_seeds"):
        more = row["more_seeds"]
        words = f"undecided: about {more} more seed{'s' if more > 1 else ''} would decide"
    elif verdict == "undecided" and len(row.get("seeds") or []) == 1:
        words = "undecided: one seed tells nothing of the noise"
    early = at_share(row)
    return f"{words} ({early})" if early else words


def at_share(row: Row) -> str:
    """`at 25 % of the budget`, where one of the two arms was stopped there; else empty."""
    share = row.get("share")
    return f"at {100 * share:.0f} % of the budget" if share is not None and share < 1 else ""


def compact(value: float) -> str:
    """Three digits, without idle zeros: `0.012`."""
    return f"{value:.3g}"


def summary(study: Row) -> str:
    """Which arms are better, worse or undecided, on what, at what budget: two sentences, the first metric's first."""
    metrics = judged(study)
    if not metrics:
        return "No metric of this study is judged."
    told = {
        name: _outcomes([row for row in rows_of(study, name) if row["against"] == study["baseline"]])
        for name in metrics
    }
    first = metrics[0]
    words = {name: in_sentence(name, study["metrics"][name]) for name in metrics}
    seeds = len(study["seeds"])
    budget = budget_words(study["match"])
    opening = f"Against {study['baseline']} on {words[first]}, {budget} and over {units.count(seeds, 'seeds')}"
    text = (
        f"{opening}, {told[first]}."
        if told[first]
        else f"Nothing is compared with {study['baseline']} on {words[first]}."
    )
    others = [f"on {words[name]}, {told[name]}" for name in metrics[1:] if told[name]]
    if others:
        joined = "; ".join(others)
        return f"{text} {joined[0].upper()}{joined[1:]}."
    smallest = study["metrics"][first].get("smallest")
    if smallest is None:
        return text
    noise = study["metrics"][first].get("noise_units")
    times = f", {compact(noise)} time{'' if noise == 1 else 's'} the seed noise" if noise else ""
    return f"{text} The smallest difference that matters was set to {compact(smallest)}{times}."


def budget_words(match: Row) -> str:
    """`at 1.2 × 10¹³ FLOPs a run`, or that the arms are not matched."""
    budget, unit = match.get("budget"), match.get("unit")
    if unit in (None, "none") or not budget:
        return "at unmatched budgets"
    if unit == "flops":
        return f"at {power_of_ten(budget)} FLOPs a run"
    return f"at {units.count(budget, unit)} a run"


def _outcomes(rows: Sequence[Row]) -> str:
    """`wsd is better by 0.031; heavy is worse by 0.10; soup is undecided`, arms with the same verdict together."""
    groups = {
        verdict: [row for row in rows if row.get("verdict") == verdict]
        for verdict in ("better", "worse", "no difference", "undecided")
    }
    parts = []
    for verdict, found in groups.items():
        if not found:
            continue
        sized = verdict in ("better", "worse")
        names = [f"{row['arm']}{_by(row) if sized else ''}" for row in found]
        listing = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        if verdict == "no difference":
            verb = "shows" if len(names) == 1 else "show"
            parts.append(f"{listing} {verb} no difference larger than {compact(found[0]['smallest'])}")
        elif len(names) == 1 and sized:
            parts.append(f"{found[0]['arm']} is {verdict}{_by(found[0], 'by ')}")
        else:
            parts.append(f"{listing} {'is' if len(names) == 1 else 'are'} {verdict}")
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _by(row: Row, word: str = "") -> str:
    if row.get("difference") is None:
        return ""
    size, early = difference(row).lstrip("+−"), at_share(row)
    return f" {word}{size}{early and f' {early}'}" if word else f" ({size}{early and f' {early}'})"
