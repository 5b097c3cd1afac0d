"""Plots: curves as plain data for plotly.js, in colours that the page resolves, so that one figure fits both themes.

A colour is `@1` to `@6` (series), `@ink`, `@muted`, `@grid`, `@paper` or `@rule`; an opacity may follow: `@1/0.2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretrain import units
from foretrain.run_directory import Series

Floats = NDArray[np.float64]
COLOURS = 6
DASHES = ("solid", "dash", "dot", "dashdot")
Colour = int | str
"""A colour of the series, from 0 on, or the name of another (`ink`, `muted`)."""
_MOST_POINTS = 1600
_FEW_POINTS = 40


def token(colour: Colour) -> str:
    """The name by which the page knows a colour; those of the series begin again after the last."""
    return colour if isinstance(colour, str) else str(colour % COLOURS + 1)


def thin(series: Series, limit: int = _MOST_POINTS) -> Series:
    """At most about `limit` points that look like all of them: first, last, and each bucket's lowest and highest."""
    keep = np.isfinite(series.values)
    steps, values = series.steps[keep], series.values[keep]
    if values.size <= limit:
        return Series(steps, values)
    chosen = {0, values.size - 1}
    for bucket in np.array_split(np.arange(values.size), limit // 2):
        chosen |= {int(bucket[np.argmin(values[bucket])]), int(bucket[np.argmax(values[bucket])])}
    index = np.array(sorted(chosen))
    return Series(steps[index], values[index])


def smooth(series: Series, share: float = 0.02) -> Series:
    """A centred running mean over about `share` of the run; what is not finite is left out.

    At the start, where losses fall steeply, the window is as short to the right as it is to the left, so that nothing
    is smeared; at the end it keeps its left half, so that the last value is a mean too.
    """
    keep = np.isfinite(series.values)
    steps, values = series.steps[keep], series.values[keep]
    half = int(values.size * share / 2)
    if half == 0:
        return Series(steps, values)
    place = np.arange(values.size)
    left = np.minimum(half, place)
    right = np.minimum(left, values.size - 1 - place)
    total = np.concatenate([[0.0], np.cumsum(values)])
    return Series(steps, (total[place + right + 1] - total[place - left]) / (left + right + 1))


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        name: in the key and on hover.
        series: its points.
        colour: 0 to 5, or the name of a colour.
        look: `line`; `faint` (measured at each step, behind its mean); `marks` (crosses without a line).
        low, high: bounds of a band around it, with the same steps.
        dash: the number of its dash pattern.
        table: which of the page's tables of steps, tokens and FLOPs its steps are converted by; empty: the page's own.
    """

    name: str
    series: Series
    colour: Colour = 0
    look: Literal["line", "faint", "marks"] = "line"
    low: Series | None = None
    high: Series | None = None
    dash: int = 0
    table: str = ""

    def traces(self, number: str) -> list[dict[str, Any]]:
        """The curve as traces of plotly; `number` is the format of its values on hover."""
        colour = f"@{token(self.colour)}"
        traces = []
        if self.low is not None and self.high is not None and self.low.steps.size:
            edge = {"mode": "lines", "line": {"width": 0, "color": colour}, "hoverinfo": "skip", "showlegend": False}
            low, high = thin(self.low), thin(self.high)
            traces.append({**edge, **_points(low)})
            traces.append({**edge, **_points(high), "fill": "tonexty", "fillcolor": f"{colour}/0.16"})
        shown = thin(self.series)
        trace: dict[str, Any] = {**_points(shown), "name": escape(self.name), "hovertemplate": f"%{{y:{number}}}"}
        if self.look == "marks":
            trace |= {
                "mode": "markers",
                "marker": {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": "@ink"}},
            }
            trace |= {"hovertemplate": "skipped"}
        else:
            few = shown.values.size <= _FEW_POINTS
            faint = self.look == "faint" and not few
            trace["mode"] = "lines+markers" if few else "lines"
            trace["line"] = {
                "color": f"{colour}/0.36" if faint else colour,
                "width": 1 if faint else 1.9,
                "dash": DASHES[self.dash % len(DASHES)],
            }
            if few:
                trace["marker"] = {"size": 5, "color": colour}
        # What is converted by a table of its own says so.
        return [{**found, "table": self.table} if self.table else found for found in (*traces, trace)]


@dataclass(frozen=True)
class Chart:
    """A figure with its heading, axis label and key.

    Attributes:
        title: heading.
        unit: label of the vertical axis.
        lines: curves, back to front.
        note: a sentence below the heading.
        number: d3 format of values.
        log: whether the vertical axis is logarithmic.
        wide: whether it takes the width of the page; `small`: whether three stand side by side.
        limits: lowest and highest value shown; unset: as the data are.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    note: str = ""
    number: str = ".4~g"
    log: bool = False
    wide: bool = False
    small: bool = False
    limits: tuple[float, float] | None = None
    keys: list[dict[str, str]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for line in self.lines:
            if line.look != "faint" and len(self.lines) > 1:
                last = "" if line.look == "marks" else units.measured(line.series.last)
                colour = "ink" if line.look == "marks" else token(line.colour)
                look = "cross" if line.look == "marks" else DASHES[line.dash % len(DASHES)]
                self.keys.append({"name": line.name, "colour": colour, "look": look, "last": last})

    @property
    def height(self) -> int:
        """In pixels."""
        return 360 if self.wide else 176 if self.small else 250

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(np.isfinite(line.series.values).any() for line in self.lines if line.look != "marks")

    @property
    def spoken(self) -> str:
        """The figure in a sentence, for those who cannot see it."""
        parts = []
        for line in self.lines:
            finite = np.isfinite(line.series.values)
            if line.look == "line" and finite.any():
                first, last = line.series.values[finite][[0, -1]]
                parts.append(f"{line.name}: {units.measured(float(first))} to {units.measured(float(last))}")
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.title}{unit}. " + "; ".join(parts)

    def figure(self) -> dict[str, Any]:
        """The figure for plotly.js; the page adds fonts, grid and the horizontal axis."""
        axis: dict[str, Any] = {"type": "log" if self.log else "linear"}
        if self.limits is not None:
            low, high = self.limits
            pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
            axis["range"] = [low - pad, high + pad]
        traces = [trace for line in self.lines for trace in line.traces(self.number)]
        return {"data": traces, "layout": {"yaxis": axis, "height": self.height}, "unit": self.unit}


def _points(series: Series) -> dict[str, Any]:
    """Steps and values as lists; seven digits are more than any screen shows."""
    return {"x": series.steps.tolist(), "y": [float(f"{value:.7g}") for value in series.values]}
