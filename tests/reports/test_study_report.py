"""Reports of simulated studies: what they say, and that they are whole, safe and open offline."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from foretrain.errors import RequestError
from foretrain.reports.study_charts import looks
from foretrain.reports.study_report import study_report, write_report
from foretrain.reports.study_tables import detectable
from foretrain.reports.study_words import (
    difference,
    interval,
    metric_title,
    metric_words,
    noise_units,
    summary,
    verdict_words,
)
from foretrain.studies.directory import StudyDirectory
from tests.reports.pages import Page, drawn
from tests.reports.studies import ARMS, ERROR, METRICS, write_study

Make = Callable[..., Path]


@pytest.fixture
def fake_study(tmp_path: Path) -> Make:
    def make(name: str = "study", **settings: Any) -> Path:
        return write_study(tmp_path / name, **settings)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Page]:
    folder = write_study(tmp_path_factory.mktemp("studies") / "whole")
    path = write_report(folder)
    assert path == folder / "report.html"
    return folder, StudyDirectory(folder).study(), Page(path.read_text(encoding="utf-8"))


def contrast_of(study: dict[str, Any], arm: str, against: str, metric: str) -> dict[str, Any]:
    keys = ("arm", "against", "metric")
    (row,) = [row for row in study["contrasts"] if tuple(row[key] for key in keys) == (arm, against, metric)]
    return row


def test_the_verdict_in_two_sentences(whole: tuple[Path, dict[str, Any], Page]) -> None:
    _, study, page = whole
    wsd = contrast_of(study, "wsd", "plain", "validation/loss")
    heavy = contrast_of(study, "heavy-decay", "plain", "validation/loss")
    first = "Against plain on validation loss, at 1.2 × 10¹³ FLOPs a run and over 5 seeds, "
    first += f"wsd is better by {-wsd['difference']:.4f}, "
    first += f"heavy-decay is worse by {heavy['difference']:.4f} at 25 % of the budget and soup is undecided."
    assert first in page.words
    assert "On questions · accuracy, wsd is better by" in page.words
    assert summary(study).count(". ") == 1, "two sentences"


def test_the_verdict_table_has_every_comparison(whole: tuple[Path, dict[str, Any], Page]) -> None:
    _, study, page = whole
    for row in study["contrasts"]:
        assert f"{difference(row)} {interval(row)}" in page.words, (row["arm"], row["metric"])
    row = contrast_of(study, "wsd", "plain", "validation/loss")
    low, high = (f"−{-bound:.4f}" for bound in row["interval"])
    cells = (
        f"wsd better −{-row['difference']:.4f} {low} to {high} −{-100 * row['relative']:.2f} % −{-row['in_noise']:.1f}"
    )
    assert f"{cells} {row['p_adjusted']:.3f} 5 " in page.words
    assert "soup undecided: about 7 more seeds would decide" in page.words
    assert "wsd against heavy-decay better (at 25 % of the budget)" in page.words
    assert "corrected for the 8 planned comparisons (Holm)" in page.words, "the metric that is not judged counts not"
    assert "soup against plain-given-soup" in page.words


def test_the_sections_of_a_whole_study(whole: tuple[Path, dict[str, Any], Page]) -> None:
    _, study, page = whole
    words = page.words
    assert "Does a short decay at the end beat a cosine?" in words
    assert ERROR in words and "soup, seed 3 failed" in words
    assert "heavy-decay optimizer.weight_decay 0.1 8" in words and "schedule.kind cosine wsd" in words
    assert "optimizer.lr (tuned) 0.003" in words and "schedule.decay – 0.2" in words
    assert "soup 1,200 1.23M 1.2 × 10¹³ 4.0 × 10¹²" in words and "1 of 5" in words
    assert "matched in FLOPs; they differ by 0.04 % at most" in words
    assert "stopping arms early saved 4.5 × 10¹³ FLOPs" in words
    assert "2.13.0+cpu" in words and "question: Does a short decay" in words
    value = study["arms"]["wsd"]["metrics"]["validation/loss"]["values"]["2"]
    assert f"wsd 2 done {value:.3f}" in words, "every seed's figure"
    assert study["notes"][0] in words
    assert set(page.charts) == set(page.data["charts"]) and len(page.charts) == len(set(page.charts))
    kinds = {f"{kind}/{name}" for kind in ("values", "differences", "curve", "gap") for name in METRICS}
    costs = {f"cost/{name}" for name, metric in METRICS.items() if metric["judged"]}
    assert set(page.charts) == kinds | costs | {"curve/loss", "curve/lr"}


def test_seeds_are_joined_and_their_means_marked(whole: tuple[Path, dict[str, Any], Page]) -> None:
    _, study, page = whole
    figure = page.data["charts"]["values/validation/loss"]
    told = {arm: study["arms"][arm]["metrics"]["validation/loss"]["values"] for arm in ("plain", "wsd", "soup")}
    joined = {trace["name"]: trace["x"][:3] for trace in figure["data"] if trace["mode"] == "lines"}
    for seed in range(5):
        values = [told[arm].get(str(seed)) for arm in ("plain", "wsd", "soup")]
        assert joined[f"seed {seed}"] == [None if value is None else float(f"{value:.7g}") for value in values]
    assert joined["seed 3"][2] is None, "the failed trial is a gap"
    bars = {trace["name"]: trace["x"] for trace in figure["data"] if trace.get("marker", {}).get("symbol") == "line-ns"}
    assert bars["wsd"] == pytest.approx([np.mean(list(told["wsd"].values()))], rel=1e-6)
    assert figure["layout"]["yaxis"]["ticktext"] == ["plain", "wsd", "soup", "plain-given-soup"]
    assert "Stopped early and so not shown: heavy-decay." in page.words


def test_differences_with_both_intervals_and_the_band(whole: tuple[Path, dict[str, Any], Page]) -> None:
    _, study, page = whole
    figure = page.data["charts"]["differences/validation/loss"]
    row = contrast_of(study, "wsd", "plain", "validation/loss")
    (thin, thick) = [trace for trace in figure["data"] if trace["x"] == [float(f"{row['difference']:.7g}")]]
    for trace, key in ((thin, "adjusted"), (thick, "interval")):
        ends = [trace["x"][0] - trace["error_x"]["arrayminus"][0], trace["x"][0] + trace["error_x"]["array"][0]]
        assert ends == pytest.approx(row[key], rel=1e-4)
    assert thin["error_x"]["thickness"] < thick["error_x"]["thickness"]
    band, zero = figure["layout"]["shapes"]
    assert (band["x0"], band["x1"], zero["x0"], zero["x1"]) == (-0.012, 0.012, 0, 0)
    assert "against heavy-decay: better" in figure["layout"]["yaxis"]["ticktext"][-1]
    assert [text.partition("<br>")[0] for text in figure["layout"]["yaxis"]["ticktext"]] == [
        *("heavy-decay", "wsd", "soup", "wsd")
    ]
    higher = page.data["charts"]["differences/task/questions/accuracy"]
    assert "left" in figure["layout"]["xaxis"]["label"] and "right" in higher["layout"]["xaxis"]["label"]


def test_curves_are_means_with_bands_of_the_trials_that_ended(whole: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = whole
    directory = StudyDirectory(folder)
    low, high, line = [
        trace for trace in page.data["charts"]["curve/validation/loss"]["data"] if trace.get("table") == "soup"
    ]
    runs = [directory.trial("soup", seed) for seed in (0, 1, 2, 4)]
    values = np.stack([run.series("validation/loss").values for run in runs])
    assert line["x"] == runs[0].series("validation/loss").steps.tolist()
    assert line["y"] == pytest.approx(values.mean(0).tolist(), rel=1e-6)
    assert low["y"] == pytest.approx((values.mean(0) - values.std(0, ddof=1)).tolist(), rel=1e-6)
    assert high["y"] == pytest.approx((values.mean(0) + values.std(0, ddof=1)).tolist(), rel=1e-6)


def test_arms_are_compared_on_the_way_at_equal_flops(whole: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = whole
    directory = StudyDirectory(folder)
    line = [trace for trace in page.data["charts"]["gap/validation/loss"]["data"] if trace.get("table") == "wsd"][-1]
    steps, expected = line["x"], []
    for seed in range(5):
        arm, base = (directory.trial(name, seed).series("validation/loss") for name in ("wsd", "plain"))
        # A step of this arm costs 1.03 of the baseline's.
        at = [np.interp(1.03 * step, base.steps, base.values) for step in steps]
        expected.append(
            [arm.values[arm.steps.tolist().index(step)] - value for step, value in zip(steps, at, strict=True)]
        )
    assert line["y"] == pytest.approx(np.mean(expected, axis=0).tolist(), abs=1e-6)


def test_each_arm_has_its_own_axis(whole: tuple[Path, dict[str, Any], Page]) -> None:
    *_, page = whole
    tables = page.data["tables"]
    assert list(page.data["axes"]) == ["steps", "tokens", "flops", "seconds"]
    assert page.data["axes"]["steps"][-1] == 1200, "the longest arm's"
    for arm, cost in (("plain", 1.0), ("wsd", 1.03)):
        assert tables[arm]["flops"] == pytest.approx([step * 1e10 * cost for step in tables[arm]["steps"]], rel=1e-6)


def test_the_pareto_front_counts_all_costs(whole: tuple[Path, dict[str, Any], Page]) -> None:
    _, study, page = whole
    figure = page.data["charts"]["cost/validation/loss"]
    found = {trace["name"]: trace for trace in figure["data"]}
    # One-off costs and tuning are added; in units of 10¹³ FLOPs.
    assert found["soup"]["x"] == [pytest.approx(1.6)] and found["wsd"]["x"] == [pytest.approx(1.4, rel=0.01)]
    assert found["soup"]["error_x"]["arrayminus"] == [pytest.approx(0.4)]
    mean = {arm: study["arms"][arm]["metrics"]["validation/loss"]["mean"] for arm in ("plain", "wsd")}
    front = found["Pareto front"]
    assert (
        front["y"] == pytest.approx([mean["plain"], mean["wsd"], mean["wsd"]], rel=1e-6)
        and front["line"]["shape"] == "hv"
    )
    hollow = {name for name, trace in found.items() if trace.get("marker", {}).get("symbol", "").endswith("-open")}
    assert hollow == {"soup", "plain-given-soup"}
    assert "heavy-decay" not in found, "what was stopped is no run of that cost"


def test_what_the_study_could_have_seen() -> None:
    row = {"seeds": [0, 1, 2, 3, 4], "sd": 0.02}
    seen = detectable([row])
    assert seen is not None
    # Power of the two-sided paired t-test at that difference, from the noncentral t: about four fifths.
    shift, edge = seen / (0.02 / math.sqrt(5)), stats.t.ppf(0.975, 4)
    assert stats.nct.sf(edge, 4, shift) == pytest.approx(0.8, abs=0.03)
    assert detectable([{"seeds": [0], "sd": None}]) is None


def test_nothing_is_loaded_from_anywhere(whole: tuple[Path, dict[str, Any], Page]) -> None:
    folder, _, page = whole
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "embed", "base")]
    assert [found for _, found in page.elements if {"src", "href", "srcset", "action", "data"} & found.keys()] == []
    assert not re.search(r"https?:", html.replace(page.scripts[1], ""))
    assert len(html) < 3_000_000


def test_the_same_study_gives_the_same_bytes(fake_study: Make) -> None:
    folder = fake_study(seeds=2, arms={name: ARMS[name] for name in ("plain", "wsd")}, one_off=None)
    assert study_report(folder) == study_report(folder)


def test_trials_with_reports_are_linked(fake_study: Make) -> None:
    arms = {"plain": ARMS["plain"], "a b": ARMS["wsd"]}
    folder = fake_study(seeds=2, arms=arms, one_off=None)
    (folder / "trials" / "a b" / "seed-1" / "report.html").write_text("")
    page = Page(study_report(folder))
    assert [found["href"] for tag, found in page.elements if tag == "a"] == ["trials/a%20b/seed-1/report.html"]


EVIL = "<b onmouseover=alert(2)>&\"'<script>alert(1)<|script>"


def test_text_of_a_study_is_never_markup(fake_study: Make) -> None:
    metrics = {f"task/{EVIL}/x": METRICS["validation/loss"], **METRICS}
    folder = fake_study(
        seeds=2, arms={"plain": ARMS["plain"], EVIL: ARMS["wsd"]}, failed=None, stopped=None, one_off=EVIL
    )
    study = StudyDirectory(folder).study()
    study |= {"name": EVIL, "notes": [EVIL]}
    study["arms"][EVIL] |= {"changes": [[EVIL, EVIL, {EVIL: EVIL}]], "tuned": {EVIL: EVIL}}
    study["arms"][EVIL]["trials"][0] |= {"status": "failed", "error": EVIL}
    study["match"]["reason"] = EVIL
    study["noise"]["validation/loss"]["source"] = EVIL
    study["metrics"] |= {name: {**metric, "figure": name} for name, metric in metrics.items()}
    study["contrasts"][0] |= {"words": EVIL, "verdict": EVIL}
    (folder / "study.json").write_text(json.dumps(study))
    (folder / "study.yaml").write_text(f"question: {json.dumps(EVIL)}\n# {EVIL}\n")
    (folder / "environment.json").write_text(json.dumps({EVIL: EVIL}))
    page = Page(study_report(folder))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3 and not [found for tag, found in page.elements if tag == "b" and found]
    assert page.words.count("alert(1)") >= 15, "all of it is shown, as text"
    texts = []
    for chart in page.data["charts"].values():
        texts += [trace.get("name", "") for trace in chart["data"]]
        texts += [text for trace in chart["data"] for text in trace.get("text", [])]
        texts += chart["layout"]["yaxis"].get("ticktext", [])
    # plotly reads a little HTML in these.
    assert any("alert" in text for text in texts)
    assert not any("<b" in text.replace("<br>", "") or "<script" in text for text in texts)


def test_one_seed(fake_study: Make) -> None:
    page = Page(study_report(fake_study(seeds=1, failed=None)))
    assert "undecided: one seed tells nothing of the noise" in page.words
    assert "One seed an arm: no bands." in page.words
    bands = [trace for chart in page.data["charts"].values() for trace in chart["data"] if trace.get("fill")]
    assert bands == []
    assert all("error_x" not in trace for trace in page.data["charts"]["differences/validation/loss"]["data"])


def test_no_curves(fake_study: Make) -> None:
    page = Page(study_report(fake_study(curves=False)))
    assert not [name for name in page.charts if name.startswith(("curve/", "gap/"))]
    assert "values/validation/loss" in page.charts and "Curves" not in page.words


def test_an_arm_without_any_figure(fake_study: Make) -> None:
    folder = fake_study(seeds=2)
    study = StudyDirectory(folder).study()
    for told in study["arms"]["wsd"]["metrics"].values():
        told |= {"mean": None, "sd": None, "values": {}, "difference": None, "interval": None}
    empty = {"difference": None, "interval": None, "adjusted": None, "relative": None, "in_noise": None, "sd": None}
    for row in study["contrasts"]:
        if "wsd" in (row["arm"], row["against"]):
            row |= {**empty, "p": None, "p_adjusted": None, "seeds": [], "differences": [], "verdict": "undecided"}
    for name in study["noise"]:
        study["noise"][name] |= {"sd": None, "low": None, "high": None}
        study["metrics"][name]["smallest"] = None
    (folder / "study.json").write_text(json.dumps(study))
    page = Page(study_report(folder))
    assert "wsd undecided –" in page.words
    assert "shapes" in page.data["charts"]["differences/validation/loss"]["layout"]


def test_a_baseline_alone(fake_study: Make) -> None:
    page = Page(study_report(fake_study(arms={"plain": ARMS["plain"]}, one_off=None)))
    assert "Nothing is compared with plain on validation loss." in page.words
    assert "values/validation/loss" in page.charts and "differences/validation/loss" not in page.charts


def test_a_study_that_has_not_ended(fake_study: Make) -> None:
    folder = fake_study(seeds=2, result=False, failed=("soup", 1))
    page = Page(study_report(folder))
    assert "This study has not ended: 7 of 8 trials are done" in page.words
    assert "curve/validation/loss" in page.charts and "Verdicts" not in page.words
    assert "soup, seed 1 failed" in page.words and ERROR in page.words
    (folder / "study.yaml").unlink()
    with pytest.raises(RequestError, match="is not a study"):
        study_report(folder)


def test_a_merged_arm_shows_the_run_before(fake_study: Make) -> None:
    folder = fake_study(seeds=2, one_off=None)
    study = StudyDirectory(folder).study()
    for trial in study["arms"]["wsd"]["trials"]:
        home = folder / trial["path"]
        home.rename(home.with_name("moved"))
        home.mkdir()
        home.with_name("moved").rename(home / "member-0")
        (home / "merged").mkdir()
        trial["path"] += "/merged"
    (folder / "study.json").write_text(json.dumps(study))
    page = Page(study_report(folder))
    assert [trace for trace in page.data["charts"]["curve/validation/loss"]["data"] if trace.get("table") == "wsd"]
    assert StudyDirectory(folder).trial("wsd", 0).path.name == "merged"


def test_arms_beyond_the_colours_differ_in_shape() -> None:
    found = looks(["base", *(f"arm-{number}" for number in range(14))], "base")
    assert found["base"].colour == "ink"
    assert len({(look.colour, look.shape) for look in found.values()}) == 15


def test_words_of_verdicts() -> None:
    assert verdict_words({"verdict": "no difference", "smallest": 0.0123456}) == "no difference larger than 0.0123"
    assert verdict_words({"verdict": "undecided", "more_seeds": 1}) == "undecided: about 1 more seed would decide"
    assert verdict_words({"verdict": "better", "share": 0.5}) == "better (at 50 % of the budget)"
    assert verdict_words({"verdict": None}) == "not judged"
    # As many digits as the interval supports; the number of noises has the sign of the difference.
    row = {"difference": -0.031234, "interval": [-0.0363, -0.0262], "in_noise": 2.6}
    assert (difference(row), interval(row), noise_units(row)) == ("−0.0312", "−0.0363 to −0.0262", "−2.6")
    best = {"figure": "validation/loss", "at": "best", "direction": "lower"}
    assert metric_title("best", best) == "best (validation loss, the best of its evaluations; lower is better)"
    assert metric_title("validation/loss", {**best, "at": "end"}) == "validation loss (lower is better)"
    assert metric_words("task/questions/exact_match") == "questions · exact match"


def test_opening_a_study(fake_study: Make, tmp_path: Path) -> None:
    folder = fake_study("first-study", seeds=1, curves=False)
    study = StudyDirectory.open(folder)
    assert study.name == "decay-and-schedule" and study.study()["seeds"] == [0]
    with pytest.raises(RequestError, match=r"There is no study .*first-stdy\. Did you mean .*first-study\?"):
        StudyDirectory.open(tmp_path / "first-stdy")
    with pytest.raises(RequestError, match="It holds studies: first-study"):
        StudyDirectory.open(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(RequestError, match="is a run and not a study"):
        StudyDirectory.open(run)


def test_trials_of_a_study(fake_study: Make) -> None:
    study = StudyDirectory(fake_study(seeds=2, one_off=None))
    assert study.trials() == {"plain": [0, 1], "heavy-decay": [0, 1], "wsd": [0, 1], "soup": [0, 1]}
    assert study.trial("wsd", 1).path == study.path / "trials" / "wsd" / "seed-1"
    with pytest.raises(RequestError, match="there is no arm 'wds'; did you mean 'wsd'"):
        study.trial("wds", 1)
    with pytest.raises(RequestError, match=r"arm 'wsd' has no trial with seed 7; there are: 0, 1\."):
        study.trial("wsd", 7)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, to draw the page")
def test_a_browser_draws_every_chart(whole: tuple[Path, dict[str, Any], Page], tmp_path: Path) -> None:
    folder, _, page = whole
    dom = drawn(folder / "report.html", tmp_path)
    assert dom.count('class="plot-container') == len(page.charts)
    assert 'class="fallback" hidden' in dom
