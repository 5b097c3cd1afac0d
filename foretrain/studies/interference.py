"""Do interventions in one run disturb each other? Figures of a study's arms in, a matrix and its verdicts out.

The arms are the untouched run, one run for each intervention alone, and one with all of them; each intervention is
read by a metric of its own. Cell (j, i) of the matrix is what intervention j alone does to the metric of i. Off the
diagonal it should be nothing; on it stands the intervention's own effect, which should be the same where all act
together. Only pairs and the one joint effect are seen: two that disturb a third only together are not.

A control that is known to disturb one of them tells whether the check could have seen it.

Cells have the words of all verdicts. Each of three families is corrected by Holm for itself: the n (n - 1) cells off
the diagonal, the n effects, and the n comparisons of all together with one alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, variance
from typing import Any

from foretrain.studies.statistics import Contrast, judge, paired

UNTOUCHED = "untouched"
"""The arm in which no intervention acts."""
JOINT = "joint"
"""The arm in which all of them do."""
CONTROL = "control"
"""The arm in which something acts that is known to disturb one of them."""
NEAR = 2.0
"""Seed standard deviations within which an effect in the joint run agrees with that of a run of its own."""

Study = Mapping[str, Any]
Cell = dict[str, Any]
"""A verdict as plain data, as in the `contrasts` of `study.json`."""


def interference(study: Study, names: Sequence[str], disturbed: str | None = None) -> dict[str, Any]:
    """The interference test.

    Args:
        study: `study.json` with the arms `untouched`, `joint` and one for each intervention, and a metric of the name
            of each intervention.
        names: the interventions.
        disturbed: the one that the arm `control` should disturb; None where there is no such arm.

    Returns:
        `matrix` (cells by acting intervention and by the one that is read), `joint` (effect of all together, by the one
        that is read), `kept` (all together against the one alone); the pairs (acting, read) that are `interacting`,
        `safe` (no difference that matters) and `undecided`; interventions whose effect is `changed`, `preserved` or
        `unsettled` where all act; those whose own effect was `seen`; `control`, with what it
        `disturbs`, its `cells` (a family of their own) and whether it was `detected`; and `words`.
    """
    pairs = [(acting, read) for acting in names for read in names if acting != read]
    off = _judged(study, [(acting, UNTOUCHED, read) for acting, read in pairs])
    own = _judged(study, [(name, UNTOUCHED, name) for name in names])
    kept = dict(zip(names, _judged(study, [(JOINT, name, name) for name in names]), strict=True))
    joint = dict(zip(names, _judged(study, [(JOINT, UNTOUCHED, name) for name in names]), strict=True))
    cells = dict(zip(pairs, off, strict=True)) | {(name, name): cell for name, cell in zip(names, own, strict=True)}
    found = {
        "interventions": list(names),
        "matrix": {acting: {read: cells[acting, read] for read in names} for acting in names},
        "joint": joint,
        "kept": kept,
        "interacting": [list(pair) for pair in pairs if _differs(cells[pair])],
        "safe": [list(pair) for pair in pairs if cells[pair]["verdict"] == "no difference"],
        "undecided": [list(pair) for pair in pairs if cells[pair]["verdict"] == "undecided"],
        "changed": [name for name in names if _differs(kept[name])],
        "preserved": [name for name in names if kept[name]["verdict"] == "no difference"],
        "unsettled": [name for name in names if kept[name]["verdict"] == "undecided"],
        "seen": [name for name in names if _differs(cells[name, name])],
        "control": None if disturbed is None else _control(study, names, disturbed),
    }
    return {**found, "words": _words(found)}


def answers(study: Study, names: Sequence[str], validation: str) -> dict[str, Any]:
    """What the one run with all interventions says of each.

    Args:
        study: `study.json` with the arms `untouched` and `joint`, and a metric of the name of each intervention.
        names: the interventions, judged as one family.
        validation: the metric that says what all of them together do to the model; judged for itself.

    Returns:
        `verdicts` by intervention, and `validation`.
    """
    cells = _judged(study, [(JOINT, UNTOUCHED, name) for name in names])
    return {
        "verdicts": dict(zip(names, cells, strict=True)),
        "validation": _judged(study, [(JOINT, UNTOUCHED, validation)])[0],
    }


def agreement(study: Study, names: Sequence[str]) -> dict[str, Cell]:
    """Each intervention's metric in the joint run against a run of its own.

    Returns:
        By intervention its cell (joint - solo), with `deviations` (the size of the difference in standard deviations
        of one arm over seeds, pooled over the two) and `agrees` (below two of them; None where nothing can be said).
    """
    found = {}
    for name, cell in zip(names, _judged(study, [(JOINT, name, name) for name in names]), strict=True):
        spread, difference = _pooled([_values(study, arm, name).values() for arm in (JOINT, name)]), cell["difference"]
        deviations = agrees = None
        if difference is not None and spread is not None:
            deviations = abs(difference) / spread if spread > 0 else None
            agrees = abs(difference) < NEAR * spread or difference == 0
        found[name] = {**cell, "deviations": deviations, "agrees": agrees}
    return found


def cost(full: Study | None, check: Study | None, names: Sequence[str]) -> dict[str, Any]:
    """FLOPs of it all, and of the separate runs that it stands for: one for each intervention and an untouched one.

    Returns:
        `check` (with the runs it begins from), `full`, `flops` (their sum), `separate`, and `saved`, the share of
        `separate` that was not spent; None where the full runs were not made.
    """
    tested = 0.0
    if check is not None:
        made = sum(float(product["flops"] or 0) for product in check.get("products", {}).values())
        tested = float(check["totals"]["flops"]) + made * len(check["seeds"])
    if full is None:
        return {"check": tested, "full": None, "flops": tested, "separate": None, "saved": None}
    spent = float(full["totals"]["flops"])
    separate = float(full["arms"][UNTOUCHED]["flops"]) * len(full["seeds"]) * (len(names) + 1)
    total = tested + spent
    return {"check": tested, "full": spent, "flops": total, "separate": separate, "saved": 1 - total / separate}


def _control(study: Study, names: Sequence[str], disturbed: str) -> dict[str, Any]:
    cells = dict(zip(names, _judged(study, [(CONTROL, UNTOUCHED, name) for name in names]), strict=True))
    return {"disturbs": disturbed, "cells": cells, "detected": _differs(cells[disturbed])}


def _judged(study: Study, wanted: Sequence[tuple[str, str, str]]) -> list[Cell]:
    """The cells of (arm, against, metric), corrected as one family."""
    contrasts = [_contrast(study, *each) for each in wanted]
    return [judged.plain() for judged in judge(contrasts, study["alpha"])] if contrasts else []


def _contrast(study: Study, arm: str, against: str, metric: str) -> Contrast:
    told = study["metrics"][metric]
    ours, theirs = _values(study, arm, metric), _values(study, against, metric)
    return paired(
        ours,
        theirs,
        direction=told["direction"],
        smallest=told["smallest"] or 0.0,
        noise=study["noise"][metric]["sd"],
        failed=len(study["seeds"]) - len(ours),
        failed_against=len(study["seeds"]) - len(theirs),
    )


def _values(study: Study, arm: str, metric: str) -> dict[int, float]:
    return {int(seed): value for seed, value in study["arms"][arm]["metrics"][metric]["values"].items()}


def _pooled(groups: Iterable[Iterable[float]]) -> float | None:
    """Standard deviation within groups of like size; None where one has a single value."""
    listed = [list(group) for group in groups]
    return math.sqrt(fmean(variance(group) for group in listed)) if min(map(len, listed)) > 1 else None


def _differs(cell: Cell) -> bool:
    return cell["verdict"] in ("better", "worse")


def _words(found: Mapping[str, Any]) -> list[str]:
    count = len(found["interventions"])
    told = []
    for acting, read in found["interacting"]:
        told.append(f"{acting} changes what {read} is read by. {found['matrix'][acting][read]['words']}")
    for name in found["changed"]:
        told.append(f"{name} has another effect where all act. {found['kept'][name]['words']}")
    if not told:
        told.append("No interaction was found.")
    pairs = count * (count - 1)
    told.append(
        f"Of {pairs} pairs, {len(found['interacting'])} interact, {len(found['safe'])} do not (no difference that "
        f"matters), and {len(found['undecided'])} are undecided."
    )
    control = found["control"]
    if control is not None:
        name, words = control["disturbs"], control["cells"][control["disturbs"]]["words"]
        told.append(
            f"The control, which should disturb {name}, was seen to. {words}"
            if control["detected"]
            else f"The control, which should disturb {name}, was not seen to, so the check may have missed others as "
            f"well; give it more steps or repeats. {words}"
        )
    unseen = [name for name in found["interventions"] if name not in found["seen"]]
    if unseen:
        told.append(
            f"The effect of {', '.join(unseen)} on its own metric was not seen in the check, so the check says little "
            "of how others disturb it; give it more steps or repeats."
        )
    return told
