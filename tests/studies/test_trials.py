"""What a trial measured: at its end, at its best, and when it was as good as the baseline ever is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foretrain.run_directory import RunDirectory
from foretrain.studies.study import Metric
from foretrain.studies.trials import value

FIGURE = "validation/loss"


def run(folder: Path, losses: list[float], final: float) -> RunDirectory:
    """A run of ten steps between evaluations, 100 FLOPs each; its result says `final`."""
    folder.mkdir()
    rows = [{"step": 10 * n, "tokens": 320 * n, "flops": 1000 * n, FIGURE: loss} for n, loss in enumerate(losses)]
    steps = rows[-1]["step"]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text("name: run\n")
    (folder / "plan.json").write_text(json.dumps({"total_steps": steps}))
    cost = {"steps": steps, "tokens": rows[-1]["tokens"], "flops": rows[-1]["flops"]}
    result = {"status": "done", "validation": {"loss": final}, "cost": cost}
    (folder / "result.json").write_text(json.dumps(result))
    return RunDirectory(folder)


def measured(at: str, arm: RunDirectory, base: RunDirectory, share: float = 1.0, higher: bool = False) -> float | None:
    def trial(found: RunDirectory) -> Any:
        plan = SimpleNamespace(total=lambda unit: float(found.cost()[unit] or 0))
        return SimpleNamespace(judged=found, plan=plan, study=SimpleNamespace(match="flops"))

    metric = Metric(at=at)  # type: ignore[arg-type]
    return value(metric, FIGURE, higher, trial(arm), trial(base), share)


@pytest.fixture
def base(tmp_path: Path) -> RunDirectory:
    return run(tmp_path / "base", [5.0, 4.0, 3.0, 3.5, 3.6], 3.55)


def test_end_is_what_the_result_says(base: RunDirectory) -> None:
    assert measured("end", base, base) == 3.55


def test_half_is_the_last_evaluation_of_the_first_half(tmp_path: Path, base: RunDirectory) -> None:
    assert measured("half", base, base) == 3.0
    uneven = run(tmp_path / "uneven", [5.0, 4.0, 3.0, 2.0], 1.0)
    assert measured("half", uneven, base) == 4.0, "half-way is at 15 of 30 steps"
    assert measured("half", base, base, share=0.25) == 4.0


def test_best_of_all_evaluations(base: RunDirectory) -> None:
    assert measured("best", base, base) == 3.0


def test_reached_between_two_evaluations(tmp_path: Path, base: RunDirectory) -> None:
    fast = run(tmp_path / "fast", [5.0, 3.2, 2.8, 2.7, 2.6], 2.6)
    assert measured("reached", base, base) == 0.5
    # 3.2 at 10 steps, 2.8 at 20: 3.0 at 15 of the baseline's 40.
    assert measured("reached", fast, base) == pytest.approx(15 / 40)


def test_never_reached(tmp_path: Path, base: RunDirectory) -> None:
    assert measured("reached", run(tmp_path / "slow", [5.0, 4.5, 4.4], 4.3), base) is None


def test_a_best_that_only_the_result_has_is_reached_at_the_end(tmp_path: Path) -> None:
    falling = run(tmp_path / "falling", [5.0, 4.0, 3.0], 2.999)
    assert measured("best", falling, falling) == 2.999
    assert measured("reached", falling, falling) == 1.0


def test_what_was_seen_before_the_end_was_measured_again_does_not_count(tmp_path: Path) -> None:
    falling = run(tmp_path / "falling", [5.0, 4.0, 3.0], 3.001)
    assert measured("best", falling, falling) == 3.001
    assert measured("reached", falling, falling) == 1.0


def test_at_a_rung_it_is_what_was_evaluated_there(base: RunDirectory) -> None:
    assert measured("end", base, base, share=0.5) == 3.0
    assert measured("end", base, base, share=0.25) == 4.0


def test_the_best_up_to_a_rung(tmp_path: Path) -> None:
    bumpy = run(tmp_path / "bumpy", [5.0, 3.0, 4.0, 2.0, 1.0], 1.0)
    assert measured("best", bumpy, bumpy, share=0.5) == 3.0


def test_where_higher_is_better_reached_is_a_rise(tmp_path: Path) -> None:
    base = run(tmp_path / "base", [0.1, 0.3, 0.5, 0.7, 0.6], 0.6)
    fast = run(tmp_path / "fast", [0.1, 0.7, 0.8, 0.8, 0.8], 0.8)
    slow = run(tmp_path / "slow", [0.1, 0.1, 0.2, 0.2, 0.2], 0.2)
    assert measured("best", base, base, higher=True) == 0.7
    assert measured("reached", base, base, higher=True) == 0.75
    assert measured("reached", fast, base, higher=True) == 0.25
    assert measured("reached", slow, base, higher=True) is None


def test_what_was_reached_is_a_share_at_a_rung_too(tmp_path: Path, base: RunDirectory) -> None:
    fast = run(tmp_path / "fast", [5.0, 3.2, 2.8, 2.7, 2.6], 2.6)
    assert measured("reached", base, base, share=0.25) == 0.5  # its loss there is 4.0, which is no share
    assert measured("reached", fast, base, share=0.25) == pytest.approx(15 / 40)
