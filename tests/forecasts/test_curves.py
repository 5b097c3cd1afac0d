from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretrain.errors import RequestError
from foretrain.forecasts.curves import CurveTable, of_run, planned_rates, refuse_mixed
from foretrain.run_directory import RunDirectory
from foretrain.schedules.constant import Constant
from tests.forecasts.made import COSINE, PEAK, WSD, annealed, rates, sized, write_run

ROWS = "model,plan,step,lr,loss\n2.5M,a,10,1e-3,4.0\n2.5M,a,20,5e-4,\n2.5M,a,30,5e-4,3.5\n2.5M,b,10,1e-3,4.1\n"


def table(folder: Path, text: str = ROWS, name: str = "t.csv", **keys: object) -> CurveTable:
    (folder / name).write_text(text)
    given = {"path": str(folder / name), "run": ["model", "plan"], "step": "step", "lr": "lr", "parameters": "model"}
    return CurveTable.model_validate({**given, **keys})


def test_a_table_is_curves_by_name(tmp_path: Path) -> None:
    found = table(tmp_path).read()
    assert list(found) == ["2.5M/a", "2.5M/b"]
    curve = found["2.5M/a"]
    assert curve.steps.tolist() == [10, 30] and curve.values.tolist() == [4.0, 3.5]
    assert curve.parameters == 2.5e6
    # A rate for every step: held before the first point, straight between points.
    assert curve.rates is not None and curve.rates.size == 30
    assert curve.rates[:10].tolist() == [1e-3] * 10
    assert curve.rates[14] == pytest.approx(7.5e-4) and curve.rates[25] == 5e-4
    # Where they rise at first, that began at the first step.
    rising = ROWS.replace("2.5M,a,10,1e-3", "2.5M,a,10,2.5e-4")
    assert table(tmp_path, rising).read()["2.5M/a"].rates[:20] == pytest.approx(2.5e-5 * np.arange(1, 21))
    assert list(table(tmp_path, where={"plan": "b"}).read()) == ["2.5M/b"]


def test_a_row_may_be_a_curve(tmp_path: Path) -> None:
    line = json.dumps({"model": "1K", "plan": "a", "loss": [3, 2.5, 2.25], "lr": 0.1})
    found = table(tmp_path, line + "\n", "t.jsonl", step=None).read()["1K/a"]
    assert found.steps.tolist() == [1, 2, 3] and found.values.tolist() == [3, 2.5, 2.25]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"loss": "los"}, "no column 'los'; did you mean 'loss'"),
        ({"run": ["model"]}, "its steps do not rise, so it may be several curves"),
        ({"where": {"plan": "c"}}, "no row has what `where` asks for"),
        ({"tokens": "plan"}, "column plan: 'a' is no number"),
        ({"path": "data:nothing.csv"}, "data:nothing.csv"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(keys: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        table(tmp_path, **keys).read()


def test_a_run_is_a_curve(tmp_path: Path) -> None:
    made = annealed(WSD)
    run = RunDirectory(write_run(tmp_path / "r", made, WSD, until=500))
    curve = of_run(run)
    assert curve.steps[-1] == 500 and curve.total == 1000
    np.testing.assert_allclose(curve.rates, rates(WSD))  # measured, and then as the recipe says
    np.testing.assert_allclose(planned_rates(run, 2000, COSINE), PEAK * rates(COSINE, 2000) / PEAK)
    np.testing.assert_allclose(planned_rates(run, 100, Constant(warmup=0)), np.full(100, PEAK))
    with pytest.raises(RequestError, match="no figure 'validation/loss'"):
        of_run(run, "validation/loss")


def test_parts_of_a_curve() -> None:
    curve = annealed(WSD, every=1)
    assert curve.between(11, 20).steps.tolist() == list(range(11, 21))
    thin = curve.thinned(100)
    assert thin.steps.size == 100 and thin.values[0] == pytest.approx(curve.values[:10].mean())
    assert curve.digest() != curve.between(1, 999).digest() == curve.between(1, 999).digest()
    with pytest.raises(RequestError, match="step 1001 lies behind the last one"):
        curve.at([1001])


def test_what_does_not_compare_is_refused() -> None:
    one = sized(1e5)
    with pytest.raises(RequestError, match="different tokenizers"):
        refuse_mixed([replace(one, tokenizer="a"), replace(one, tokenizer="b")])
    refuse_mixed([replace(one, tokenizer=each, figure="validation/x/bits_per_byte") for each in "ab"])
    with pytest.raises(RequestError, match="different figures"):
        refuse_mixed([one, replace(one, figure="other")])
