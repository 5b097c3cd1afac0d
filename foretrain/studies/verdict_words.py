"""A verdict as sentences that a reader of a report understands, with no more digits than the seeds allow."""

from __future__ import annotations

import math
from typing import Literal

from foretrain.studies.contrast import Contrast, Interval
from foretrain.studies.power import MOST_SEEDS
from foretrain.units import measured

Verdict = Literal["better", "worse", "no difference", "undecided"]


def sentence(
    contrast: Contrast,
    verdict: Verdict,
    *,
    alpha: float,
    family: int,
    p_adjusted: float | None,
    adjusted: Interval | None,
    more_seeds: int | None,
    beyond: bool,
) -> str:
    """The verdict in words.

    Better and worse come with the `1 - alpha` interval of the contrast alone (which excludes 0 whenever the corrected
    test does), "no difference" with the corrected interval, on which it rests.

    Args:
        contrast: what was judged.
        verdict: the outcome.
        alpha: error rate of the family.
        family: planned contrasts in it.
        p_adjusted: p after correction.
        adjusted: the corrected interval.
        more_seeds: about how many more seeds would decide.
        beyond: whether that number is too large to name.
    """
    count = len(contrast.seeds)
    if contrast.difference is None:
        return f"Undecided: no seed has a figure in both arms.{_missing(contrast)}"
    if count == 1:
        return (
            f"Undecided: on the one seed that both arms have, the difference is {_short(contrast.difference)}; one "
            f"seed tells nothing of chance.{_missing(contrast)}"
        )
    if verdict == "no difference":
        return _no_difference(contrast, alpha, family, adjusted)
    if verdict == "undecided":
        return _undecided(contrast, alpha, family, p_adjusted, more_seeds, beyond)
    return _called(contrast, verdict, alpha, family, p_adjusted)


def _called(contrast: Contrast, verdict: Verdict, alpha: float, family: int, p_adjusted: float | None) -> str:
    difference, interval = contrast.difference or 0.0, contrast.between(alpha)
    low, high = interval or (difference, difference)
    # The word carries the sign.
    near, far = (low, high) if difference > 0 else (-high, -low)
    width = (far - near) / 2
    if contrast.sd == 0:
        within = f"on every one of {len(contrast.seeds)} seeds"
    else:
        within = f"({_percent(alpha)} interval {_rounded(near, width)} to {_rounded(far, width)}; {_seeds(contrast)})"
    size = _rounded(abs(difference), width) if width else _short(abs(difference))
    text = f"{verdict.capitalize()} by {size} {within}"
    if contrast.in_noise is not None:
        text += f", {_times(contrast.in_noise)} the seed noise"
    if family > 1:
        text += f"; p = {_p(p_adjusted)} after correction for {family} contrasts"
    text += "."
    if near < contrast.smallest:
        text += f" It may be smaller than {_short(contrast.smallest)}, the smallest effect that matters."
    return text + _missing(contrast)


def _no_difference(contrast: Contrast, alpha: float, family: int, adjusted: Interval | None) -> str:
    if contrast.identical or adjusted is None:
        return f"No difference: both arms give exactly the same figure on each of {_seeds(contrast)}."
    low, high = adjusted
    width = (high - low) / 2
    corrected = f", corrected for {family} contrasts" if family > 1 else ""
    return (
        f"No difference larger than {_short(contrast.smallest)}: the difference is "
        f"{_rounded(contrast.difference or 0.0, width)} ({_percent(alpha / family)} interval {_rounded(low, width)} "
        f"to {_rounded(high, width)}{corrected}; {_seeds(contrast)})."
    )


def _undecided(
    contrast: Contrast, alpha: float, family: int, p_adjusted: float | None, more_seeds: int | None, beyond: bool
) -> str:
    difference, interval = contrast.difference or 0.0, contrast.between(alpha)
    if contrast.identical:
        text = f"Undecided: both arms give exactly the same figure on each of {_seeds(contrast)}"
    elif contrast.sd == 0:
        text = f"Undecided: the difference is {_short(difference)} on each of {_seeds(contrast)}"
        if not contrast.failed and not contrast.failed_against:
            text += ", and that so few agree to the last digit may be chance"
    else:
        low, high = interval or (difference, difference)
        width = (high - low) / 2
        text = (
            f"Undecided: the difference is {_rounded(difference, width)} ({_percent(alpha)} interval "
            f"{_rounded(low, width)} to {_rounded(high, width)}; {_seeds(contrast)})"
        )
        if family > 1 and (low > 0 or high < 0) and p_adjusted is not None and p_adjusted >= alpha:
            text += f", which is not enough after correction for {family} contrasts (p = {_p(p_adjusted)})"
    if contrast.failed or contrast.failed_against:
        return f"{text}.{_missing(contrast)}"
    if beyond:
        return f"{text}; more than {MOST_SEEDS} more seeds would be needed to decide."
    if contrast.sd == 0:
        return f"{text}; about {_number(more_seeds)} that {_agree(more_seeds)} would decide."
    return f"{text}; about {_number(more_seeds)} would decide if these figures hold."


def _missing(contrast: Contrast) -> str:
    """What trials without a figure mean for the verdict; empty where there are none."""
    text = ""
    if contrast.failed:
        text += f" {_trials(contrast.failed)} of this arm gave no figure, so it can only be called worse or undecided:"
        text += " the figures that are missing may be its bad ones."
    if contrast.failed_against:
        text += f" {_trials(contrast.failed_against)} of the arm it is compared with gave no figure, so this arm can"
        text += " only be called better or undecided."
    return text


def _seeds(contrast: Contrast) -> str:
    return f"{len(contrast.seeds)} seeds"


def _trials(count: int) -> str:
    return f"{count} trial" if count == 1 else f"{count} trials"


def _number(more_seeds: int | None) -> str:
    return f"{more_seeds} more seed" if more_seeds == 1 else f"{more_seeds} more seeds"


def _agree(more_seeds: int | None) -> str:
    return "agrees" if more_seeds == 1 else "agree"


def _percent(alpha: float) -> str:
    return f"{100 * (1 - alpha):.4g} %"


def _p(value: float | None) -> str:
    return "unknown" if value is None else "0.0001 or less" if value <= 1e-4 else f"{value:.2g}"


def _times(value: float) -> str:
    return f"{value:.1f} times" if value < 99.95 else f"{value:,.0f} times"


def _short(value: float) -> str:
    """A number without an interval: three digits, no idle zeros."""
    return f"{value:.3g}" if value == 0 or 1e-4 <= abs(value) < 1e3 else measured(value)


def _rounded(value: float, width: float) -> str:
    """`value` to two digits of `width`, the half-width of its interval: 0.1003 within 0.02 is `0.100`."""
    if not (1e-5 <= width < 1e4) or abs(value) >= 1e6:
        return measured(value)
    text = f"{value:,.{max(0, 1 - math.floor(math.log10(width)))}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text
