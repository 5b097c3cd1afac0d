"""Listing: claims with their last verdicts, as plain rows and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from foretrain import tables, units
from foretrain.claims import words
from foretrain.claims.finding import Entry, entries
from foretrain.reports import study_words
from foretrain.studies.interference import UNTOUCHED

STYLES = {"reproduced": "good", "not reproduced": "bad", "undecided": "note", "not run": "label"}
"""Verdicts in their colours."""


def list_claims(folder: Path | str | None = None) -> list[dict[str, Any]]:
    """One row per claim, by name, as plain data.

    Each has `slug, title, arxiv, year, verdict, effect, interval, seeds, date, commit, stale, scale, what`. Effect (in
    the unit of the metric), interval and seeds are those of the claim's first expectation, and `what` says what it
    compares; they are None where the claim was not run.

    Args:
        folder: where the claims are; if None `recipes/claims`, or else those that foretrain comes with.

    Raises:
        RequestError: there is no such folder, or a claim in it has faults.
    """
    return [_row(entry) for entry in entries(folder)]


def _row(entry: Entry) -> dict[str, Any]:
    paper, result = entry.claim.paper, entry.result
    first = (result or {"expectations": [{}]})["expectations"][0]
    wanted = entry.claim.expects[0]
    against = first.get("against") or wanted.against or baseline(entry)
    return {
        "slug": entry.slug,
        "title": paper.title,
        "arxiv": paper.arxiv,
        "year": paper.year,
        "verdict": entry.verdict,
        "effect": first.get("difference"),
        "interval": first.get("interval"),
        "seeds": first.get("seeds"),
        "date": result["date"] if result else None,
        "commit": words.commit(result) if result else None,
        "stale": entry.stale,
        "scale": result["scale"] if result else None,
        "what": words.about(first.get("arm") or wanted.arm, against, first.get("metric") or wanted.metric),
    }


def baseline(entry: Entry) -> str:
    """The baseline of a claim's study, as it is written."""
    study = entry.claim.study
    if "train_once" in study:
        return UNTOUCHED
    arms = study.get("arms") or (study.get("forecast") or {}).get("forecasters") or {}
    return str(study.get("baseline") or next(iter(arms), ""))


def listing(rows: Sequence[Mapping[str, Any]]) -> list[Table | Text | str]:
    """What `list_claims` gave, for people: as much of it as stands in a line of 80 characters."""
    if not rows:
        return ["There are no claims here."]
    shown = [
        {
            "claim": Text(row["slug"], style="strong"),
            "verdict": verdict_text(row["verdict"], row["stale"], row["scale"]),
            "effect": Text(study_words.difference({"difference": row["effect"], "interval": row["interval"]})),
            "95 % interval": Text(study_words.interval(row) or units.MISSING, style="label"),
            "seeds": row["seeds"],
        }
        for row in rows
    ]
    return [tables.table(shown)]


def shown(claim: Mapping[str, Any]) -> list[Table | Text | str]:
    """What `show_claim` gave, for people."""
    told, result = claim["claim"], claim["result"]
    paper = told["paper"]
    arxiv = f", arXiv {paper['arxiv']}" if paper["arxiv"] else ""
    facts = {
        "paper": f"{paper['title']} ({paper['year']}{arxiv})",
        "published": told["claim"],
        "refuted if": told["refuted_if"],
        "shrunk": told["scale"]["shrunk"],
        "survives": told["scale"]["survives"],
        **({"decided here": "\n".join(told["decided"])} if told["decided"] else {}),
        "verdict": verdict_text(claim["verdict"], claim["stale"], result and result["scale"]),
    }
    rows = [
        {"": key, "what": value if isinstance(value, Text) else " ".join(value.split())} for key, value in facts.items()
    ]
    pieces: list[Table | Text | str] = [tables.table(rows, {"": "", "what": claim["slug"]})]
    return [*pieces, *outcomes(result)] if result else [*pieces, f"Run it: foretrain claims run {claim['slug']}"]


def outcomes(result: Mapping[str, Any]) -> list[Table | Text | str]:
    """What `run_claim` gave, for people: every expectation beside what was found, and what it cost."""
    styles = {"met": "good", "contradicted": "bad", "open": "note"}
    rows = [
        {
            "comparison": words.about(row["arm"], row["against"], row["metric"]),
            "expected": " or ".join(row["expected"]),
            "found": Text(row["found"] or units.MISSING, style=styles[row["outcome"]]),
            "effect": Text(words.effect(row)),
            "published": units.MISSING if row["published"] is None else words.percent(row["published"]),
            "95 % interval": Text(study_words.interval(row) or units.MISSING, style="label"),
            "seeds": row["seeds"],
        }
        for row in result["expectations"]
    ]
    verdict = Text.assemble(f"{result['slug']}: ", (result["verdict"], STYLES[result["verdict"]]))
    smoke = " (a smoke run decides nothing, and nothing of it is kept)" if result["scale"] == "smoke" else ""
    return [tables.table(rows, caption=words.cost(result)), verdict.append(smoke)]


def verdict_text(verdict: str, stale: bool, scale: str | None) -> Text:
    """A verdict in its colour."""
    return Text(words.verdict_words(verdict, stale, scale), style=STYLES[verdict])
