"""The register: docs/claims.md, which says of every published system what became of it here.

Every figure on it comes from a `result.json`, every text from a `claim.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretrain import units
from foretrain.claims import words
from foretrain.claims.finding import Entry, entries
from foretrain.claims.train_once import CHECK, arms_as_written
from foretrain.comparison import flat
from foretrain.reports import study_words
from foretrain.studies.study import Arm

MARK = "<!-- Written by `python -m foretrain.reference --write docs` from the claims and their results. -->"
_VERDICTS = ("reproduced", "not reproduced", "undecided", "not run")
_HEAD = """# Claims

What papers say of pre-training, restated as studies that anyone can run: at a matched budget, over several seeds, with
what was expected, and what would refute it, written down first. Most are far smaller than what was published; each says
why its effect should survive that. A claim that is not reproduced here is not reproduced *at this size, as restated
here*: no more.

`foretrain claims run SLUG` runs one again; [how claims are made](claims-howto.md).
"""


def page(folder: Path | str | None = None) -> str:
    """The page of the claims in a folder (None: where claims are found)."""
    return register(entries(folder))


def register(claims: Sequence[Entry]) -> str:
    """docs/claims.md: a row for each published system, and below it a section for each claim."""
    pieces = [_HEAD, MARK + "\n"]
    if not claims:
        return "\n".join([*pieces, "There are no claims yet.\n"])
    groups = systems(claims)
    return "\n".join([*pieces, _counts(claims, groups), _overview(groups), *(_section(each) for each in claims)])


def systems(claims: Sequence[Entry]) -> list[list[Entry]]:
    """Claims by the system they are of: those with the same paper together, in order of their first name."""
    groups: dict[str, list[Entry]] = {}
    for each in claims:
        groups.setdefault(each.claim.paper.arxiv or each.claim.paper.title, []).append(each)
    return list(groups.values())


def _counts(claims: Sequence[Entry], groups: Sequence[Sequence[Entry]]) -> str:
    verdicts = [each.verdict for each in claims]
    told = ", ".join(f"{verdicts.count(word)} {word}" for word in _VERDICTS if word in verdicts)
    return f"{units.count(len(claims), 'claims')} of {units.count(len(groups), 'systems')}: {told}.\n"


# The table ----------------------------------------------------------------------------------------------------------

_COLUMNS = ("system", "claim", "verdict", "effect", "published", "95 % interval", "seeds", "cost", "date")


def _overview(groups: Sequence[Sequence[Entry]]) -> str:
    rows = []
    for group in groups:
        cells = [_overview_cells(each) for each in group]
        # Several claims of one system share its row, one line each.
        rows.append([_paper(group[0]), *("<br>".join(lines) for lines in zip(*cells, strict=True))])
    return _table(_COLUMNS, rows)


def _overview_cells(entry: Entry) -> list[str]:
    result, wanted = entry.result, entry.claim.expects[0]
    link = f"[{entry.slug}](#{entry.slug})"
    if result is None:
        return [link, entry.verdict, units.MISSING, words.published(wanted), *[units.MISSING] * 4]
    first = result["expectations"][0]
    return [
        link,
        _verdict(entry),
        words.effect(first),
        words.published(wanted),
        study_words.interval(first) or units.MISSING,
        str(first["seeds"]),
        words.cost(result),
        str(result["date"]),
    ]


def _verdict(entry: Entry) -> str:
    told = words.verdict_words(entry.verdict, entry.stale, entry.result["scale"] if entry.result else None)
    return f"**{entry.verdict}**{told.removeprefix(entry.verdict)}"


def _paper(entry: Entry) -> str:
    paper = entry.claim.paper
    title = f"[{paper.title}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.title
    return f"{title} ({paper.year})"


# A section ----------------------------------------------------------------------------------------------------------


def _section(entry: Entry) -> str:
    claim, result = entry.claim, entry.result
    lines = [f"## {entry.slug}", _paper(entry), f"**Published.** {_line(claim.claim)}"]
    question = _line(str(claim.study.get("question") or ""))
    lines.append(f"**Our study.** {question or 'The arms, and what each changes of the base:'}")
    lines.append(_arms(entry).rstrip())
    lines.append(f"**Refuted if:** {_line(claim.refuted_if)}")
    lines.append(f"**Scale.** {_line(claim.scale.shrunk)} {_line(claim.scale.survives)}")
    if claim.decided:
        lines.append("**Decided here**, as the paper leaves it open:")
        lines.append("\n".join(f"- {_line(text)}" for text in claim.decided))
    if result is None:
        lines.append(f"**Verdict.** Not run. {_expected(entry)}")
        return "\n\n".join(lines) + "\n"
    lines.append(f"**Verdict.** {_verdict(entry)}.")
    outcomes = [_line(words.outcome_words(row)) for row in result["expectations"]]
    notes = [f"Note: {_line(note)}" for note in result["notes"]]
    lines.append("\n".join(f"- {text}" for text in [*outcomes, *_second(result), *notes]))
    lines.append(f"{result['date']}, {words.cost(result)} in all. {words.versions(result)}.")
    return "\n\n".join(lines) + "\n"


def _expected(entry: Entry) -> str:
    told = [
        f"{wanted.arm}{f' against {wanted.against}' if wanted.against else ''}, "
        f"{study_words.metric_words(wanted.metric)} {words.published(wanted)}"
        for wanted in entry.claim.expects
    ]
    return f"Expected: {'; '.join(told)}."


def _second(result: Mapping[str, Any]) -> list[str]:
    """The verdicts against baselines that were given the one-off FLOPs too."""
    return [
        f"With its one-off FLOPs given to the baseline too: {row['arm']} on {study_words.metric_words(row['metric'])}: "
        f"{_line(str(row.get('words') or row.get('verdict'))).rstrip('.')}."
        for row in result["second"]
        if row.get("verdict")
    ]


def _arms(entry: Entry) -> str:
    """What each arm changes, and what it measured (mean and standard deviation over seeds) and cost."""
    result, study = entry.result, entry.claim.study
    raw = study.get("arms") or arms_as_written(study) or (study.get("forecast") or {}).get("forecasters", {})
    changes = {name: _changes(arm) for name, arm in raw.items()}
    common = _alike(list(changes.values()))
    above = f"In every arm: {_told(common)}.\n\n" if common else ""
    own = {name: _told({key: each[key] for key in each if key not in common}) for name, each in changes.items()}
    if result is None:
        return above + _table(("arm", "changes"), [[name, own[name]] for name in raw])
    metrics = {name: told for name, told in result["study"]["metrics"].items() if not name.startswith(CHECK)}
    # Arms that the study added itself (baselines with a larger budget) change nothing of their own.
    names = [*result["arms"], *(name for name in raw if name not in result["arms"])]
    rows = []
    for name in names:
        found = result["arms"].get(name)
        row = [name, own.get(name, "")]
        if found is None:
            rows.append([*row, *[""] * (len(metrics) + 4)])
            continue
        figures = [words.figure(found["metrics"].get(metric)) for metric in metrics]
        costs = [units.count(found["steps"]), units.count(found["tokens"])]
        costs.append(units.flops(found["flops"]).removesuffix(" FLOPs"))
        rows.append([*row, *figures, *costs, units.duration(found["seconds"])])
    heads = [*(words.metric(name, metrics[name].get("figure")) for name in metrics), "steps", "tokens", "FLOPs", "time"]
    return above + _table(("arm", "changes", *heads), rows)


def _changes(arm: Any) -> dict[str, Any]:
    """What an arm changes of the base, as it is written; the empty key is that of a text alone."""
    if isinstance(arm, str):
        return {"": arm}
    if not isinstance(arm, Mapping) or not arm:
        return {}
    bare = not set(arm) & set(Arm.model_fields)
    return dict(arm) if bare else {**arm.get("set", {}), **{key: arm[key] for key in arm if key != "set"}}


def _alike(changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys that all arms, of several, change alike: also in the order of what is in them, which may matter."""
    first, *others = changes or [{}]
    same = {key: json.dumps(value) for key, value in first.items()} if others else {}
    return {
        key: first[key] for key in same if all(key in each and json.dumps(each[key]) == same[key] for each in others)
    }


def _told(changes: Mapping[str, Any]) -> str:
    leaves = flat(changes) if changes else {}
    return "; ".join(f"`{key}: {value}`" if key else f"`{value}`" for key, value in leaves.items())


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_line(cell).replace("|", "\\|") for cell in row) + " |" for row in lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())
