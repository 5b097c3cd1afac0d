"""Flips: items that one of two models gets right and the other does not, counted from what a task measured of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scipy import stats

from foretrain.errors import RequestError
from foretrain.tasks.base import Measured
from foretrain.tasks.statistics import LEVEL, mean, proportion


def gains(old: Measured, new: Measured) -> list[float]:
    """How much better the new model is at each item: above 0 where it is better, whichever way is good.

    Raises:
        RequestError: the metric says nothing of single items, or the two were measured on different ones.
    """
    if not old.values or not new.values:
        raise RequestError("Flips are counted item by item, and this metric has no value for a single item.")
    if len(old.values) != len(new.values):
        raise RequestError(
            f"Flips compare the same items, and the old model was measured on {len(old.values)} and the new one on "
            f"{len(new.values)}."
        )
    sign = 1.0 if new.higher_is_better else -1.0
    return [sign * (b - a) for a, b in zip(old.values, new.values, strict=True)]


def flips(old: Measured, new: Measured) -> dict[str, Measured]:
    """Shares of items, with 95 % intervals over items (Wilson's for shares, Student's for means).

    Returns:
        `negative_flips`: of items that the new model is worse at (of right and wrong: that it breaks);
        `positive_flips`: of those that it is better at; `change`: the mean of how much better it is (of right and
        wrong: its accuracy minus the old one's, which is the share of positive flips minus that of negative ones).
    """
    found = gains(old, new)
    truncated = max(old.truncated, new.truncated)
    negative = proportion([gain < 0 for gain in found], truncated=truncated)
    return {
        "negative_flips": replace(negative, higher_is_better=False),
        "positive_flips": proportion([gain > 0 for gain in found], truncated=truncated),
        "change": _change(found, truncated),
    }


def _change(found: Sequence[float], truncated: int) -> Measured:
    """The mean gain. Of right and wrong its interval is Agresti's and Min's for paired shares.

    That is Wald's, each of the four kinds of pairs counted half an item more often than it is: right for few items,
    and no point where nothing flipped.
    """
    plain = mean(found, higher_is_better=True, truncated=truncated)
    if not set(found) <= {-1.0, 0.0, 1.0}:
        return plain
    items, up, down = len(found) + 2, found.count(1.0) + 0.5, found.count(-1.0) + 0.5
    centre = (up - down) / items
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * math.sqrt((up + down) / items - centre * centre) / math.sqrt(items)
    return replace(plain, low=max(-1.0, centre - half), high=min(1.0, centre + half))


def sizes(old: Measured, new: Measured) -> dict[str, float | None]:
    """How much is gained, on average, where something is, and lost where something is; None where nothing is."""
    found = gains(old, new)
    up, down = [gain for gain in found if gain > 0], [-gain for gain in found if gain < 0]
    return {
        "mean_gain": sum(up) / len(up) if up else None,
        "mean_regression": sum(down) / len(down) if down else None,
    }


def wrong_otherwise(old: Measured, new: Measured) -> Measured | None:
    """The share of items that the new model gets wrong in another way than the old one did (right, or otherwise wrong).

    None where the task does not tell what was answered.
    """
    if not old.answers or not new.answers:
        return None
    answered = zip(new.values, old.answers, new.answers, strict=True)
    worse = [not right and before != after for right, before, after in answered]
    return replace(proportion(worse), higher_is_better=False)


def flipped(old: Measured, new: Measured, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Every item that flipped, the broken ones first.

    Each has `item` (from 1), `flip`, `text`, its values as `old` and `new`, and what was answered, where it is told.
    """
    rows = []
    for number, gain in enumerate(gains(old, new)):
        if gain != 0:
            rows.append(
                {
                    "item": number + 1,
                    "flip": "negative" if gain < 0 else "positive",
                    "text": texts[number] if number < len(texts) else "",
                    "old": old.values[number],
                    "new": new.values[number],
                    "old_answer": old.answers[number] if old.answers else None,
                    "new_answer": new.answers[number] if new.answers else None,
                }
            )
    return sorted(rows, key=lambda row: row["flip"])
