"""Scatter: points whose axes are their own, in the plane or in named rows, as plain data for plotly.js.

Colours are those of `plots`. Where a `Chart` holds curves over a run, a `Scatter` holds single figures: values of
seeds, differences with their intervals, cost against quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal

from foretrain import units
from foretrain.reports.plots import Colour, token

SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True)
class Points:
    """Points of one kind in a `Scatter`.

    Attributes:
        name: in the key, if `keyed`.
        x, y: where they are; None leaves a gap. In a chart of rows, y is the number of the row, from the top.
        said: what each point says on hover; empty: they say nothing.
        colour: 0 to 5, or the name of a colour.
        look: `dots`; `open` (hollow dots); `bar` (a short upright line, for a mean); `joined` (thin lines, no dots);
            `stairs` (a level line to the next point, then up or down); `none` (only the intervals).
        symbol: the number of its shape.
        across, along: ends of an interval around each point, horizontal or vertical.
        thick: width of the intervals, in pixels.
        keyed: whether it is in the key.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    said: Sequence[str] = ()
    colour: Colour = 0
    look: Literal["dots", "open", "bar", "joined", "stairs", "none"] = "dots"
    symbol: int = 0
    across: Sequence[tuple[float, float]] = ()
    along: Sequence[tuple[float, float]] = ()
    thick: float = 1.5
    keyed: bool = False

    def scaled(self, factor: float) -> Points:
        """The same with another unit of the horizontal axis."""
        x = [None if value is None else factor * value for value in self.x]
        return replace(self, x=x, across=[(factor * low, factor * high) for low, high in self.across])

    def trace(self) -> dict[str, Any]:
        """The points as one trace of plotly."""
        colour = f"@{token(self.colour)}"
        trace: dict[str, Any] = {"name": escape(self.name), "x": _digits(self.x), "y": _digits(self.y)}
        if self.look in ("joined", "stairs"):
            line = {"color": f"{colour}/0.45" if self.look == "joined" else colour, "width": 1}
            if self.look == "stairs":
                line |= {"shape": "hv", "dash": "dot", "width": 1.5}
            trace |= {"mode": "lines", "line": line}
        elif self.look == "bar":
            trace |= {
                "mode": "markers",
                "marker": {"symbol": "line-ns", "size": 22, "line": {"width": 2.5, "color": colour}},
            }
        else:
            symbol = SYMBOLS[self.symbol % len(SYMBOLS)]
            hollow = {"symbol": f"{symbol}-open", "line": {"width": 2}} if self.look == "open" else {"symbol": symbol}
            size = 0 if self.look == "none" else 9
            trace |= {"mode": "markers", "marker": {**hollow, "size": size, "color": colour}}
        for axis, middles, bounds in (("error_x", self.x, self.across), ("error_y", self.y, self.along)):
            if bounds:
                pairs = [
                    (0.0 if at is None else at, low, high) for at, (low, high) in zip(middles, bounds, strict=True)
                ]
                sides = {
                    "array": [high - at for at, _, high in pairs],
                    "arrayminus": [at - low for at, low, _ in pairs],
                }
                look = {"color": colour, "thickness": self.thick, "width": 0}
                trace[axis] = {
                    "type": "data",
                    "symmetric": False,
                    **look,
                    **{key: _digits(side) for key, side in sides.items()},
                }
        if self.said:
            return trace | {"text": [escape(said) for said in self.said], "hovertemplate": "%{text}<extra></extra>"}
        return trace | {"hoverinfo": "skip"}


@dataclass(frozen=True)
class Scatter:
    """Points with axes of their own.

    Attributes:
        title: heading.
        across: label of the horizontal axis.
        unit: label of the vertical axis; empty for a chart of rows.
        points: back to front.
        rows: names of the rows of a chart of rows, from the top, each with a word below it or an empty one.
        note: a sentence below the heading.
        band: a stretch of the horizontal axis that is shaded.
        zero: whether a line marks 0 on the horizontal axis.
        log: whether the horizontal axis is logarithmic.
        from_zero: whether the horizontal axis starts at 0.
        wide: whether it takes the width of the page.
    """

    title: str
    across: str
    unit: str
    points: Sequence[Points]
    rows: Sequence[tuple[str, str]] = ()
    note: str = ""
    band: tuple[float, float] | None = None
    zero: bool = False
    log: bool = False
    from_zero: bool = False
    wide: bool = False

    @property
    def keys(self) -> list[dict[str, str]]:
        """What the shapes and colours stand for."""
        keys = []
        for points in self.points:
            if points.keyed:
                colour = token(points.colour)
                look = "dot" if points.look == "stairs" else f"mark-{points.symbol % len(SYMBOLS)}"
                last = "" if points.look == "stairs" or not points.y else units.measured(points.y[-1])
                hollow = "-open" if points.look == "open" else ""
                keys.append({"name": points.name, "colour": colour, "look": look + hollow, "last": last})
        return keys

    @property
    def height(self) -> int:
        """In pixels."""
        return 74 + 46 * len(self.rows) if self.rows else 340

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value is not None for points in self.points for value in points.x)

    @property
    def spoken(self) -> str:
        """The figure in a sentence, for those who cannot see it."""
        said = [text for points in self.points if points.look in ("dots", "open") for text in points.said]
        return f"{self.title} ({self.unit or self.across}). " + "; ".join(said)

    def figure(self) -> dict[str, Any]:
        """The figure for plotly.js; the page adds fonts and grid."""
        xaxis: dict[str, Any] = {"label": self.across, "type": "log" if self.log else "linear"}
        yaxis: dict[str, Any] = {"type": "linear"}
        shapes: list[dict[str, Any]] = []
        if self.from_zero and not self.log:
            xaxis["rangemode"] = "tozero"
        upright = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
        if self.band is not None:
            low, high = self.band
            shapes.append(
                {"type": "rect", "x0": low, "x1": high, **upright, "fillcolor": "@muted/0.13", "line": {"width": 0}}
            )
        if self.zero:
            shapes.append({"type": "line", "x0": 0, "x1": 0, **upright, "line": {"color": "@muted", "width": 1.5}})
        if self.rows:
            labels = [
                f"{_shortened(name)}<br><span style='font-size:11px'>{escape(word)}</span>"
                if word
                else _shortened(name)
                for name, word in self.rows
            ]
            places = list(range(len(labels)))
            yaxis |= {"tickmode": "array", "tickvals": places, "ticktext": labels, "range": [len(labels) - 0.5, -0.5]}
            yaxis |= {"rows": True}
        layout = {"xaxis": xaxis, "yaxis": yaxis, "shapes": shapes, "height": self.height}
        return {"data": [points.trace() for points in self.points], "layout": layout, "unit": self.unit}


def _shortened(name: str, limit: int = 24) -> str:
    """A name that leaves room for the chart beside it; it is whole on hover and in the tables."""
    return escape(name if len(name) <= limit else f"{name[: limit - 1]}…")


def _digits(values: Sequence[float | None]) -> list[float | None]:
    """Seven digits, more than any screen shows."""
    return [None if value is None else float(f"{value:.7g}") for value in values]
