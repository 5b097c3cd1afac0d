"""Words of claims: effects, verdicts and costs, as the register and the terminal say them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretrain import units
from foretrain.claims.claim import Expectation
from foretrain.reports import study_words

Row = Mapping[str, Any]


def percent(value: float) -> str:
    """A relative size as a percentage with two digits: `4.8 %`, `120 %`."""
    size = 100 * abs(value)
    return f"{float(f'{size:.2g}'):.10g} %" if size < 100 else f"{size:.0f} %"


def effect(row: Row | None) -> str:
    """What was found: `−0.103 (4.8 % lower)`, a dash where there is nothing."""
    if row is None or row.get("difference") is None:
        return units.MISSING
    text = study_words.difference(row)
    share = study_words.relative(row)
    return text if share is None else f"{text} ({percent(share)} {'lower' if share < 0 else 'higher'})"


def published(wanted: Expectation) -> str:
    """What the paper says: `5 % lower`, or `lower` where it gives no size."""
    word = wanted.direction or " or ".join(wanted.effects)
    return word if wanted.relative is None else f"{percent(wanted.relative)} {word}"


def metric(name: str, figure: str | None = None) -> str:
    """A metric, with the figure it reads where it has a name of its own: `speed-up (validation loss)`."""
    words = study_words.metric_words(name)
    return words if figure in (None, name) else f"{words} ({study_words.metric_words(str(figure))})"


def figure(figures: Row | None) -> str:
    """A mean over seeds and its standard deviation, with two digits of the latter: `3.863 ± 0.070`."""
    if figures is None or figures["mean"] is None:
        return units.MISSING
    spread = figures["sd"]
    places = study_words.decimals({"interval": [-spread, spread]}) if spread else None
    if places is None:
        return units.measured(figures["mean"])
    return f"{figures['mean']:,.{places}f} ± {spread:.{places}f}"


def about(arm: str, against: str, metric: str) -> str:
    """What is compared: `heavy − plain, validation loss`."""
    return f"{arm} − {against}, {study_words.metric_words(metric)}"


def verdict_words(verdict: str, stale: bool = False, scale: str | None = None) -> str:
    """`reproduced`, with what has to be known beside it."""
    beside = [
        *(["at full scale"] if scale == "full" else []),
        *(["of an earlier version of the claim"] if stale else []),
    ]
    return f"{verdict} ({', '.join(beside)})" if beside else verdict


def outcome_words(row: Row) -> str:
    """An expectation and what became of it, in a sentence or two."""
    pair = f"{row['arm']} against {row['against']} on {metric(row['metric'], row.get('figure'))}"
    found = row["found"] or "nothing"
    why = str(row.get("words") or "The study holds no verdict on it").rstrip(".")
    return f"{pair}: expected {' or '.join(row['expected'])}, found {found}. {why}."


def cost(result: Row) -> str:
    """What running it cost: `1.8e14 FLOPs, 7 min 50 s`."""
    totals = result["totals"]
    return f"{units.flops(totals.get('flops'))}, {units.duration(totals.get('seconds'))}"


def commit(result: Row) -> str | None:
    """The commit that it was run at; `-dirty` where files differed from it."""
    return None if not result.get("commit") else f"{result['commit']}{'-dirty' if result.get('changed') else ''}"


def versions(result: Row) -> str:
    """What it ran on, in a line."""
    told = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    at = f" at commit {found[:12]}{'-dirty' if found.endswith('-dirty') else ''}" if (found := commit(result)) else ""
    return f"{told}{at}; {result['hardware']}"
