"""Curves: thinning, smoothing and figures that plotly itself accepts."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from foretrain.reports.plots import Chart, Line, smooth, thin
from foretrain.run_directory import Series


def curve(values: list[float] | np.ndarray) -> Series:
    array = np.asarray(values, dtype=np.float64)
    return Series(np.arange(1, array.size + 1), array)


def resolved(value: Any) -> Any:
    """A figure with its colour names replaced, as the page's script does."""
    if isinstance(value, str):
        return re.sub(r"^@\w+(/([\d.]+))?$", "rgba(1,2,3,0.5)", value)
    if isinstance(value, dict):
        return {key: resolved(child) for key, child in value.items()}
    return [resolved(child) for child in value] if isinstance(value, list) else value


def test_thinning_keeps_ends_and_extremes() -> None:
    values = np.random.Generator(np.random.Philox(1)).normal(size=20_000)
    values[12_345], values[4_321], values[77] = 50.0, -50.0, np.nan
    found = thin(curve(values), 500)
    assert found.steps.size <= 502 and np.all(np.diff(found.steps) > 0)
    assert (found.steps[0], found.steps[-1]) == (1, 20_000)
    assert {50.0, -50.0} <= set(found.values.tolist()) and np.isfinite(found.values).all()
    assert np.array_equal(found.values, values[found.steps - 1])


def test_short_curves_stay_whole() -> None:
    found = thin(curve([1.0, np.nan, 3.0]))
    assert (found.steps.tolist(), found.values.tolist()) == ([1, 3], [1.0, 3.0])


def test_smoothing_equals_a_mean_written_out() -> None:
    values = np.random.Generator(np.random.Philox(2)).normal(size=200)
    found = smooth(curve(values), 0.1)
    half = 10
    for i in range(200):
        left = min(half, i)
        right = min(left, 199 - i)
        assert found.values[i] == pytest.approx(values[i - left : i + right + 1].mean())


def test_smoothing_neither_lags_nor_invents() -> None:
    line = np.linspace(9.0, 1.0, 500)
    found = smooth(curve(line), 0.05)
    assert found.values[:480] == pytest.approx(line[:480]), "a straight line stays where it is"
    assert smooth(curve([2.0])).values.tolist() == [2.0]
    assert smooth(curve([])).values.size == 0
    holes = np.where(np.arange(300) % 7 == 0, np.nan, 4.0)
    assert set(smooth(curve(holes)).values.round(9).tolist()) == {4.0}


def test_figures_are_ones_that_plotly_knows() -> None:
    band = curve([0.2, 0.3, 0.4])
    lines = [
        Line("each <step>", curve(np.arange(100.0)), look="faint"),
        Line("mean", band, colour=1, low=curve([0.1, 0.2, 0.3]), high=curve([0.3, 0.4, 0.5])),
        Line("skipped", curve([1.0]), look="marks"),
    ]
    chart = Chart("Title", "unit", lines, log=True, wide=True, limits=(0.0, 2.0))
    figure = chart.figure()
    go.Figure(
        data=[{"type": "scatter", **trace} for trace in resolved(figure["data"])], layout=resolved(figure["layout"])
    )
    json.dumps(figure, allow_nan=False)
    # plotly reads a little HTML in names: they are escaped, so that a name stays a name.
    assert figure["data"][0]["name"] == "each &lt;step&gt;"
    low, high, middle = figure["data"][1:4]
    assert (low["y"], high["y"], high["fill"]) == ([0.1, 0.2, 0.3], [0.3, 0.4, 0.5], "tonexty")
    assert middle["y"] == [0.2, 0.3, 0.4] and low["line"]["width"] == high["line"]["width"] == 0


def test_keys_name_what_is_drawn_and_its_last_value() -> None:
    chart = Chart("t", "u", [Line("raw", curve([1.0, 2.0]), look="faint"), Line("mean", curve([1.0, 1.5]), colour=7)])
    assert chart.keys == [{"name": "mean", "colour": "2", "look": "solid", "last": "1.500"}]
    assert Chart("t", "u", [Line("only", curve([1.0]))]).keys == []
    assert chart.spoken == "t (u). mean: 1.000 to 1.500"


def test_a_chart_of_nothing_is_empty() -> None:
    assert Chart("t", "u", [Line("a", curve([])), Line("b", curve([np.nan]))]).empty
    assert not Chart("t", "u", [Line("a", curve([1.0]))]).empty


def test_a_single_point_is_drawn_as_one() -> None:
    (trace,) = Line("a", curve([1.0])).traces(".3f")
    assert trace["mode"] == "lines+markers"
