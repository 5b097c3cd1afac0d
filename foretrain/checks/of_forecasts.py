"""What forecasters promise: the same curves give the same, predictions are finite, quantiles in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from foretrain.checks.promises import need, title
from foretrain.checks.trial import Figures
from foretrain.errors import RequestError
from foretrain.forecasts.base import Fitted
from foretrain.forecasts.curves import Course, Curve

_TOTAL = 400


def check_forecaster(part: Any, recipe: Figures) -> None:
    """It goes on with a made-up curve from its beginning, alone or beside curves of other sizes, and says how sure."""
    for curves in ([_curve(1e5)], [_curve(2e4), _curve(5e4), _curve(2e5)]):
        seen = [*curves[:-1], curves[-1].between(1, 300)]
        try:
            fitted, again = part.fit(seen), part.fit(seen)
        except RequestError:
            continue
        course = Course(
            seen[-1].name, np.array([350, 400]), seen[-1].rates, np.array([350.0, 400.0]) * 64, curves[-1].parameters
        )
        _check_fitted(part, fitted, again, course)
        _check_refusal(part, seen)
        return
    raise AssertionError(f"{title(part)}: it goes on with none of the curves of the check")


def _check_fitted(part: Any, fitted: Fitted, again: Fitted, course: Course) -> None:
    told = fitted.predict(course)
    need(told.shape == (2,) and bool(np.isfinite(told).all()), f"{title(part)}: it predicts {told}")
    levels = fitted.quantiles(course, [0.1, 0.5, 0.9])
    need(bool((np.diff(levels, axis=0) >= 0).all()), f"{title(part)}: its quantiles do not rise ({levels})")
    chance = fitted.chance_below(course, float(levels[1, 0]))
    need(bool(((chance >= 0) & (chance <= 1)).all()), f"{title(part)}: a chance is {chance}")
    for name in ("predict", "draws"):
        same = np.array_equal(getattr(fitted, name)(course), getattr(again, name)(course))
        need(same, f"{title(part)}: the same curves give another answer to `{name}`")


def _check_refusal(part: Any, seen: Sequence[Curve]) -> None:
    """No curve at all is refused in words."""
    try:
        part.fit([])
    except RequestError:
        return
    raise AssertionError(f"{title(part)}: it learns from no curve at all")


def _curve(parameters: float) -> Curve:
    """A falling loss under a rate that falls from half of the run on."""
    steps = np.arange(5, _TOTAL + 1, 5)
    rates = 1e-3 * np.minimum(1.0, 2 - 2 * np.arange(_TOTAL) / _TOTAL)
    values = 2 + 5 * parameters**-0.2 + 6 * steps**-0.5
    values = values * (1 + 1e-3 * np.sin(steps)) - 0.1 * np.maximum(0, steps / _TOTAL - 0.5)
    return Curve(
        f"{parameters:g}", steps, rates, (steps * 64).astype(np.float64), parameters, values=values, total=_TOTAL
    )
