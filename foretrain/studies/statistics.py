"""From the figures of two arms to a verdict: paired differences, intervals, Holm's correction over what was planned.

The rules, for differences `arm - against` over the seeds that both arms have:

* **No difference** when the corrected interval lies within `(-smallest, smallest)`: the interval of level
  `1 - alpha / contrasts`, so that all intervals of the family hold together. At a true difference of exactly
  `smallest` this verdict is wrong in at most `alpha / 2` of all studies.
* **Better or worse** when the p of the two-sided paired t test, after Holm's correction, is below `alpha`.
* **Undecided** otherwise, with the number of further seeds that would decide with a chance of 80 %, the observed mean
  and spread taken as true. It is a number to plan with: a study that adds seeds until it likes the verdict looks
  several times and errs more often than `alpha`.

Every planned contrast counts in the correction, those without figures too: a failed arm must not ease the others.
A trial that failed or gave no finite figure is missing for a reason: an arm with such trials is never called better
and never "no difference", only worse or undecided; likewise, mirrored, for the arm it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.studies.contrast import ROUNDING, Contrast, Direction, Interval, deviation, paired
from foretrain.studies.power import MOST_SEEDS, chance_to_decide, detectable, seeds_needed
from foretrain.studies.verdict_words import Verdict, sentence

__all__ = [
    "Contrast",
    "Direction",
    "Floor",
    "Judged",
    "Verdict",
    "chance_to_decide",
    "detectable",
    "false_positive_rate",
    "judge",
    "noise_floor",
    "paired",
    "seeds_needed",
]


@dataclass(frozen=True)
class Judged:
    """A contrast with its verdict, corrected for the family it was planned in."""

    contrast: Contrast
    p_adjusted: float | None
    """`p` after Holm's correction."""
    adjusted: Interval | None
    """Interval of level `1 - alpha / contrasts`: all of the family's hold together with chance `1 - alpha`."""
    verdict: Verdict
    more_seeds: int | None
    """About how many more seeds would decide; None where it is decided, above 1000, or not a matter of seeds."""
    words: str
    """The verdict in full sentences."""

    def plain(self) -> dict[str, Any]:
        """What `study.json` holds of it: JSON data without NaN."""
        contrast = self.contrast
        return {
            "seeds": list(contrast.seeds),
            "differences": list(contrast.differences),
            "difference": contrast.difference,
            "relative": contrast.relative,
            "sd": contrast.sd,
            "interval": _listed(contrast.interval),
            "bootstrap": _listed(contrast.bootstrap),
            "p": contrast.p,
            "p_adjusted": self.p_adjusted,
            "adjusted": _listed(self.adjusted),
            "noise": contrast.noise,
            "in_noise": contrast.in_noise,
            "smallest": contrast.smallest,
            "verdict": self.verdict,
            "more_seeds": self.more_seeds,
            "words": self.words,
        }


@dataclass(frozen=True)
class Floor:
    """The seed noise of one arm: how far a figure moves when nothing but the seed changes."""

    sd: float | None
    """Standard deviation over seeds (n - 1); None below two values."""
    low: float | None
    """Lower end of its 95 % interval (chi-square; for values that are about normal)."""
    high: float | None
    """Upper end; None where all values are equal, which bounds nothing."""
    seeds: int
    """Finite values it comes from."""


def judge(contrasts: Sequence[Contrast], alpha: float = 0.05) -> list[Judged]:
    """The verdicts on a family of planned contrasts, in the order given; `alpha` is the error rate of the family.

    `alpha` bounds the chance that any arm of the family that is in truth no different is called better or worse.
    """
    family = len(contrasts)
    judged = []
    for contrast, (p_adjusted, adjusted, verdict) in zip(contrasts, _verdicts(contrasts, alpha), strict=True):
        more, capped = _more_seeds(contrast, alpha, family) if verdict == "undecided" else (None, False)
        words = sentence(
            contrast,
            verdict,
            alpha=alpha,
            family=family,
            p_adjusted=p_adjusted,
            adjusted=adjusted,
            more_seeds=more,
            beyond=capped,
        )
        judged.append(Judged(contrast, p_adjusted, adjusted, verdict, more, words))
    return judged


def noise_floor(values: Sequence[float | None]) -> Floor:
    """The standard deviation of one arm over seeds, with its 95 % chi-square interval. Takes finite values only."""
    finite = np.array([value for value in values if value is not None and math.isfinite(value)], dtype=np.float64)
    count = len(finite)
    sd = deviation(finite, ROUNDING * float(np.max(np.abs(finite), initial=0.0)))
    if sd is None:
        return Floor(None, None, None, count)
    if sd == 0:
        return Floor(0.0, 0.0, None, count)
    low, high = (sd * math.sqrt((count - 1) / special.chdtri(count - 1, tail)) for tail in (0.025, 0.975))
    return Floor(sd, low, high, count)


def false_positive_rate(
    values: Sequence[float],
    seeds: int = 5,
    resamples: int = 2000,
    alpha: float = 0.05,
    smallest: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """How often an arm is called better or worse than itself.

    Draws two disjoint groups of the values of one arm, pairs them at random and judges them as two arms would be. (The
    same seed twice would be bit-identical and prove nothing.) With `smallest` 0 no study is spared by "no difference".

    Args:
        values: one arm's figures over seeds; those that are not finite are left out.
        seeds: pairs of each resampled study, 2 or more.
        resamples: studies to draw.
        alpha: the error rate that is stated.
        smallest: the smallest effect that matters.
        seed: of the resampling.

    Returns:
        `rate` with `low` and `high`: the exact binomial 95 % interval of the share for *these* values. Resamples
        overlap: they are no more independent studies than `independent`, the disjoint pairs of groups in the values.

    Raises:
        RequestError: fewer than `2 * seeds` values, or fewer than two seeds or one resample.
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if seeds < 2 or resamples < 1:
        raise RequestError(
            f"The false-positive rate was asked for with {seeds} seeds and {resamples} resamples; it takes at least "
            "2 seeds and 1 resample."
        )
    if len(finite) < 2 * seeds:
        raise RequestError(
            f"The false-positive rate of a study with {seeds} seeds takes two disjoint groups of {seeds} runs of one "
            f"arm, which is {2 * seeds} finite values; there are {len(finite)}. Run the arm over at least "
            f"{2 * seeds} seeds, or ask for {len(finite) // 2} seeds or fewer."
        )
    generator = np.random.default_rng(seed_from("false-positive-rate", seed))
    called = 0
    for _ in range(resamples):
        drawn = generator.permutation(finite)
        groups = [dict(enumerate(group.tolist())) for group in (drawn[:seeds], drawn[seeds : 2 * seeds])]
        contrast = paired(*groups, direction="lower", smallest=smallest, noise=None)
        called += _verdicts([contrast], alpha)[0][2] in ("better", "worse")
    return {
        "rate": called / resamples,
        "low": float(special.betaincinv(called, resamples - called + 1, 0.025)) if called else 0.0,
        "high": float(special.betaincinv(called + 1, resamples - called, 0.975)) if called < resamples else 1.0,
        "resamples": resamples,
        "seeds": seeds,
        "alpha": alpha,
        "values": len(finite),
        "independent": len(finite) // (2 * seeds),
    }


def _verdicts(contrasts: Sequence[Contrast], alpha: float) -> list[tuple[float | None, Interval | None, Verdict]]:
    """Corrected p, corrected interval and verdict of each contrast of a family."""
    family = len(contrasts)
    adjusted_p: list[float | None] = [None] * family
    tested = sorted((contrast.p, place) for place, contrast in enumerate(contrasts) if contrast.p is not None)
    running = 0.0
    for rank, (p, place) in enumerate(tested):
        running = max(running, min(1.0, (family - rank) * p))
        adjusted_p[place] = running
    found = []
    for contrast, p_adjusted in zip(contrasts, adjusted_p, strict=True):
        interval = contrast.between(alpha / family)
        found.append((p_adjusted, interval, _verdict(contrast, p_adjusted, interval, alpha)))
    return found


def _verdict(contrast: Contrast, p_adjusted: float | None, interval: Interval | None, alpha: float) -> Verdict:
    if contrast.difference is None or p_adjusted is None:
        return "undecided"
    within = interval is not None and -contrast.smallest < interval[0] and interval[1] < contrast.smallest
    if (within or contrast.identical) and not contrast.failed and not contrast.failed_against:
        return "no difference"
    if p_adjusted >= alpha:
        return "undecided"
    if (contrast.difference < 0) == (contrast.direction == "lower"):
        return "undecided" if contrast.failed else "better"
    return "undecided" if contrast.failed_against else "worse"


def _more_seeds(contrast: Contrast, alpha: float, family: int) -> tuple[int | None, bool]:
    """About how many more seeds would decide, and whether that is None because it is beyond `MOST_SEEDS`."""
    count = len(contrast.seeds)
    if contrast.difference is None or contrast.sd is None or contrast.failed or contrast.failed_against:
        return None, False
    if contrast.sd == 0:
        needed: int | None = next(n for n in range(2, 200) if family * 2.0 ** (1 - n) < alpha)
    else:
        needed = seeds_needed(
            contrast.difference,
            contrast.sd,
            smallest=contrast.smallest,
            alpha=alpha,
            contrasts=family,
            most=count + MOST_SEEDS,
        )
    return (None, True) if needed is None else (max(1, needed - count), False)


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
