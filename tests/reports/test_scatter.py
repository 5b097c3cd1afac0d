"""Scatters: figures that plotly itself accepts, with names that stay text."""

from __future__ import annotations

import json
import re
from typing import Any

import plotly.graph_objects as go
import pytest

from foretrain.reports.scatter import Points, Scatter


def resolved(value: Any) -> Any:
    """A figure as the page hands it on: colour names replaced, what is meant for the page itself left out."""
    if isinstance(value, str):
        return re.sub(r"^@\w+(/([\d.]+))?$", "rgba(1,2,3,0.5)", value)
    if isinstance(value, dict):
        return {key: resolved(child) for key, child in value.items() if key not in ("label", "rows")}
    return [resolved(child) for child in value] if isinstance(value, list) else value


def test_figures_are_ones_that_plotly_knows() -> None:
    points = [
        Points("seed 0", [1.0, None, 3.0], [0, 1, 2], colour="muted", look="joined"),
        Points("<b>", [1.0], [0], ["<i>1"], 7, symbol=1, across=[(0.5, 2.0)], along=[(-1.0, 1.0)], thick=3, keyed=True),
        Points("mean", [1.0], [0], look="bar"),
        Points("none", [1.0], [0], look="none", across=[(0.0, 3.0)]),
        Points("front", [1.0, 2.0], [3.0, 4.0], look="stairs", colour="muted", keyed=True),
        Points("open", [1.0], [0.25], look="open", keyed=True),
    ]
    rows = [("<b>", "worse"), ("y" * 40, "")]
    chart = Scatter("Title", "across", "", points, rows, band=(-1.0, 1.0), zero=True, from_zero=True)
    figure = chart.figure()
    json.dumps(figure, allow_nan=False)
    go.Figure(
        data=[{"type": "scatter", **trace} for trace in resolved(figure["data"])], layout=resolved(figure["layout"])
    )
    joined, dots = figure["data"][:2]
    assert joined["x"] == [1.0, None, 3.0] and joined["hoverinfo"] == "skip"
    assert dots["name"] == "&lt;b&gt;" and dots["text"] == ["&lt;i&gt;1"] and dots["marker"]["color"] == "@2"
    assert (dots["error_x"]["arrayminus"], dots["error_x"]["array"]) == ([0.5], [1.0])
    assert (dots["error_y"]["arrayminus"], dots["error_y"]["array"]) == ([1.0], [1.0])
    labels = figure["layout"]["yaxis"]["ticktext"]
    assert labels[0].startswith("&lt;b&gt;<br>") and len(labels[1]) == 24, (
        "long names are cut; the tables have them whole"
    )
    assert figure["layout"]["yaxis"]["range"] == [1.5, -0.5], "the first row is on top"
    assert [(key["name"], key["look"], key["last"]) for key in chart.keys] == [
        ("<b>", "mark-1", "0.000"),
        ("front", "dot", ""),
        ("open", "mark-0-open", "0.2500"),
    ]
    assert chart.spoken == "Title (across). <i>1"


def test_another_unit_of_the_horizontal_axis() -> None:
    found = Points("a", [2.0, None], [1.0, 1.0], across=[(1.0, 4.0), (0.0, 0.0)]).scaled(0.5)
    assert (found.x, found.across) == ([1.0, None], [(0.5, 2.0), (0.0, 0.0)])


@pytest.mark.parametrize(
    ("points", "empty"), [([], True), ([Points("a", [None], [0])], True), ([Points("a", [1.0], [0])], False)]
)
def test_a_chart_of_nothing_is_empty(points: list[Points], empty: bool) -> None:
    assert Scatter("t", "x", "y", points).empty is empty
