"""Reports of simulated runs: what they say, and that they are whole, safe and open offline."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretrain.reports.run_report import run_report, write_report
from foretrain.reports.run_tables import power_of_ten
from foretrain.run_directory import RunDirectory
from tests.reports.pages import Page, drawn

Make = Callable[..., RunDirectory]


def test_a_whole_run(fake_run: Make) -> None:
    run = fake_run(skipped={301: "spike", 640: "non-finite"}, moving=True)
    path = write_report(run)
    assert path == run.path / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    final = run.final()
    words = page.words
    assert "A 4.12M-parameter llama trained on 3.93M tokens of general (50 %) and biomedical (50 %) in" in words
    assert f"to {final['validation/loss']:.3f} nats per token" in words
    bits = (final["validation/general/bits_per_byte"] + final["validation/biomedical/bits_per_byte"]) / 2
    assert f"({bits:.3f} bits per byte)" in words
    assert "2 steps were skipped (1 spike, 1 non-finite)." in words
    low, high = final["task/questions/accuracy/low"], final["task/questions/accuracy/high"]
    assert f"{low:.4f} to {high:.4f} 812" in words, "interval and number of items in the results"
    assert "3,932,160 3,932,160" in words, "planned and spent tokens"
    assert "a1a1" in words and "8,211" in words and "The patient was given a dose" in words
    assert set(page.charts) == set(page.data["charts"]) and len(page.charts) == len(set(page.charts))
    expected = {"loss", "validation/loss", "validation/bits_per_byte", "task/questions/accuracy", "task/cloze/loss"}
    assert expected | {"lr", "gradient_norm", "weights", "speed", "mfu", "probe/rank_me/rank"} == set(page.charts)
    assert list(page.data["axes"]) == ["steps", "tokens", "flops", "seconds"]


def test_the_axes_convert_steps(fake_run: Make) -> None:
    run = fake_run(steps=1000)
    axes = Page(run_report(run)).data["axes"]
    assert (axes["steps"][0], axes["steps"][-1]) == (0, 1000)
    assert axes["tokens"] == [step * 4096 for step in axes["steps"]]
    assert axes["seconds"][0] == 0 and axes["seconds"][-1] == pytest.approx(run.series("seconds").last, rel=1e-5)
    assert len({len(values) for values in axes.values()}) == 1


def test_skipped_losses_do_not_stretch_the_curve(fake_run: Make) -> None:
    page = Page(run_report(fake_run(skipped={301: "spike"})))
    figure = page.data["charts"]["loss"]
    marks = figure["data"][-1]
    assert marks["x"] == [301] and 2 < marks["y"][0] < 6
    assert max(max(trace["y"]) for trace in figure["data"]) < 10


def test_nothing_is_loaded_from_anywhere(fake_run: Make) -> None:
    html = run_report(fake_run(steps=20))
    page = Page(html)
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "embed", "base")]
    sources = [found for _, found in page.elements if {"src", "href", "srcset", "action", "data"} & found.keys()]
    assert sources == []
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"https?:", html.replace(page.scripts[1], ""))
    (policy,) = [found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none';") and "unsafe-inline'; script" in policy
    assert len(html) < 2_500_000


def test_the_same_run_gives_the_same_bytes(fake_run: Make) -> None:
    run = fake_run(steps=20)
    assert run_report(run) == run_report(RunDirectory(run.path))


EVIL = "</script><script>alert(1)</script><b onmouseover=alert(2)>&\"'"


def test_text_of_a_run_is_never_markup(fake_run: Make) -> None:
    run = fake_run(steps=30, domains=(EVIL.replace("/", "|"), "prose"))
    plan = run.plan() | {"notes": [EVIL], "hashes": {EVIL: EVIL}, "model": {"type": EVIL}}
    run.plan_path.write_text(json.dumps(plan))
    run.samples_path.write_text(json.dumps([{"prompt": EVIL, "text": EVIL}]))
    run.environment_path.write_text(json.dumps({EVIL: EVIL}))
    run.recipe_path.write_text(f"name: {json.dumps(EVIL)}\n# {EVIL}\n")
    run.result_path.write_text(json.dumps({"status": "failed", "error": EVIL}))
    with open(run.metrics_path, "a") as handle:
        handle.write(json.dumps({"step": 31, f"probe/{EVIL}/x": 1.0, f"task/{EVIL.replace('/', '|')}/x": 0.5}) + "\n")
    page = Page(run_report(run))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3 and "b" not in {tag for tag, found in page.elements if found}
    assert page.words.count("alert(1)") >= 8, "all of it is shown, as text"
    names = [trace.get("name", "") for chart in page.data["charts"].values() for trace in chart["data"]]
    assert not any("<" in name for name in names)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 1, "tasks": False, "domains": ()}, "1 step of 4,096"),
        ({"steps": 420, "total": 1200, "result": False}, "interrupted at step 420 of 1,200"),
        ({"steps": 50, "tasks": False, "domains": ("general",)}, "Validation loss fell"),
        ({"steps": 3, "skipped": {1: "non-finite", 2: "non-finite", 3: "spike"}}, "3 steps were skipped"),
        ({"steps": 60, "tasks": True, "domains": ()}, "Training loss fell"),
    ],
)
def test_odd_runs(fake_run: Make, settings: dict[str, Any], says: str) -> None:
    page = Page(run_report(fake_run(**settings)))
    assert says in page.words
    assert all(chart["data"] for chart in page.data["charts"].values())


def test_a_run_that_has_not_started(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: empty\n")
    html = run_report(RunDirectory(tmp_path))
    page = Page(html)
    assert "The run has not started" in page.words and page.charts == []
    assert len(html) < 60_000, "no curves, no plotly"


def test_a_failed_run_says_why(fake_run: Make) -> None:
    run = fake_run(steps=30, total=100)
    run.result_path.write_text(json.dumps({"status": "failed", "error": "20 bad steps in a row."}))
    assert "The run failed at step 30 of 100. 20 bad steps in a row." in Page(run_report(run)).words


def test_tasks_measured_only_at_the_end_are_in_the_results(fake_run: Make) -> None:
    run = fake_run(steps=30, tasks=False)
    measured = {"value": 0.4321, "low": 0.4, "high": 0.46, "items": 77, "higher_is_better": True}
    validation = {"loss": 7.125, "general/loss": 7.0}
    told = {"status": "done", "tasks": {"quiz": {"exact_match": measured}}, "validation": validation}
    run.result_path.write_text(json.dumps(told))
    words = Page(run_report(run)).words
    assert "quiz · exact match 0.4321 0.4000 to 0.4600 77" in words
    assert "to 7.125 nats per token" in words, "what the result says outranks the last evaluation"


def test_the_environment_in_words(fake_run: Make) -> None:
    run = fake_run(steps=3)
    found = {"cpu": {"model": "X", "flags": ["avx2", "fma"]}, "memory": 24 << 30, "gpus": [], "commit": None}
    run.environment_path.write_text(json.dumps({**found, "gpu": [{"name": "H", "memory": 1 << 30}]}))
    words = Page(run_report(run)).words
    assert "cpu · model X cpu · flags avx2, fma memory 24 GiB gpu · 0 · name H gpu · 0 · memory 1 GiB Recipe" in words


def test_powers_of_ten() -> None:
    assert power_of_ten(2.44e14) == "2.4 × 10¹⁴"
    assert power_of_ten(9.96e9) == "1.0 × 10¹⁰"
    assert power_of_ten(512) == "512" and power_of_ten(None) == "–"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium, to draw the page")
def test_a_browser_draws_every_curve(fake_run: Make, tmp_path: Path) -> None:
    run = fake_run(skipped={301: "spike"}, moving=True)
    path = write_report(run)
    dom = drawn(path, tmp_path)
    assert dom.count('class="plot-container') == len(Page(path.read_text()).charts)
    assert 'class="fallback" hidden' in dom
