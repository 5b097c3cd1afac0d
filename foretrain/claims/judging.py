"""Judging: from the verdicts of a study to the verdict of the claim that it restates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from foretrain.claims.claim import Claim, Effect

Outcome = Literal["met", "contradicted", "open"]
Verdict = Literal["reproduced", "not reproduced", "undecided", "not run"]
_DECIDED = ("better", "worse", "no difference")


def outcome(expected: Collection[Effect], found: str | None) -> Outcome:
    """What a study's verdict means for what was expected (any of several); `found` is None where there is none.

    An expectation is contradicted by every other decided verdict: the opposite one, no difference where one was
    claimed, or a difference where none was.
    """
    if found in expected:
        return "met"
    return "contradicted" if found in _DECIDED else "open"


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """The verdict of a claim: one contradicted expectation refutes it, and only all of them together reproduce it."""
    if not outcomes:
        return "not run"
    if "contradicted" in outcomes:
        return "not reproduced"
    return "reproduced" if all(each == "met" for each in outcomes) else "undecided"


def judge(claim: Claim, study: Mapping[str, Any] | None) -> tuple[Verdict, list[dict[str, Any]]]:
    """The verdict of a claim, and of each of its expectations, from what `study.json` says.

    Args:
        claim: what was expected.
        study: what was found; None if nothing was run.

    Returns:
        The verdict, and per expectation `arm`, `against`, `metric`, `figure`, `expected` (one verdict or two), `found`,
        `outcome`, `published` (relative size, without a sign) and the figures of the contrast: `difference`,
        `relative`, `in_noise`, `interval`, `p_adjusted` and others, and how many `seeds` it has.
    """
    rows = [_judged(claim, number, study) for number in range(len(claim.expects))] if study is not None else []
    return verdict([row["outcome"] for row in rows]), rows


def _judged(claim: Claim, number: int, study: Mapping[str, Any]) -> dict[str, Any]:
    wanted = claim.expects[number]
    against = wanted.against or str(study["baseline"])
    contrast: Mapping[str, Any] = next(
        (
            row
            for row in study["contrasts"]
            if (row["arm"], row["against"], row["metric"]) == (wanted.arm, against, wanted.metric)
        ),
        {},
    )
    metric = study["metrics"].get(wanted.metric, {})
    expected = wanted.verdicts(metric.get("direction", "lower"))
    found = contrast.get("verdict")
    return {
        "arm": wanted.arm,
        "against": against,
        "metric": wanted.metric,
        "figure": metric.get("figure") or wanted.metric,
        "better": metric.get("direction"),
        "expected": expected,
        "published": wanted.relative,
        "found": found,
        "outcome": outcome(expected, found),
        **{key: contrast.get(key) for key in _FIGURES},
        "seeds": len(contrast.get("seeds") or ()),
    }


_FIGURES = (
    "difference",
    "relative",
    "in_noise",
    "interval",
    "adjusted",
    "p",
    "p_adjusted",
    "smallest",
    "share",
    "more_seeds",
    "words",
)
"""What is taken over from a contrast of `study.json`."""
