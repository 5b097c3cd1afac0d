"""Run directories written by hand, read back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretrain.errors import CorruptFile, RequestError
from foretrain.lock import RunLock
from foretrain.run_directory import RunDirectory, list_runs, series


def write(folder: Path, lines: list[dict[str, Any]] | None = None, **files: Any) -> RunDirectory:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(f"name: {folder.name}\nseed: 0\noptimizer: {{lr: 1e-3}}\n")
    if lines is not None:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return RunDirectory(folder)


LINES = [
    {"step": 0, "tokens": 0, "flops": 0, "validation/loss": 8.0},
    {"step": 1, "tokens": 10, "flops": 100, "loss": 7.0, "lr": 0.1},
    {"step": 2, "tokens": 20, "flops": 200, "loss": None, "not_finite": {"loss": "nan"}, "skipped": "non-finite"},
    {"step": 3, "tokens": 30, "flops": 300, "loss": 5.0, "lr": 0.2},
    {"step": 3, "tokens": 30, "flops": 300, "validation/loss": 5.5},
]


def test_series_and_final_figures(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES)
    loss = run.series("loss")
    assert loss.steps.tolist() == [1, 2, 3]
    assert np.array_equal(loss.values, [7.0, math.nan, 5.0], equal_nan=True)
    assert loss.last == 5.0
    assert run.series("validation/loss").steps.tolist() == [0, 3]
    assert run.series("nothing").steps.size == 0 and run.series("nothing").last is None
    assert run.final() == {"step": 3, "tokens": 30, "flops": 300, "validation/loss": 5.5, "loss": 5.0, "lr": 0.2}
    assert run.names() == ["tokens", "flops", "validation/loss", "loss", "lr", "skipped"]


def test_the_last_line_of_a_step_counts_and_steps_rise() -> None:
    found = series([{"step": 5, "x": 1.0}, {"step": 3, "x": 2.0}, {"step": 5, "x": 4.0}], "x")
    assert (found.steps.tolist(), found.values.tolist()) == ([3, 5], [2.0, 4.0])


def test_timing_is_found_under_the_same_names(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES)
    rows = [{"step": 1, "seconds": 2.5, "memory": 9, "tensor_memory": 3}, {"step": 3, "seconds": 7.5, "memory": 7}]
    run.timing_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run.series("seconds").values.tolist() == [2.5, 7.5]
    assert run.cost() == {"steps": 3, "tokens": 30, "flops": 300, "seconds": 7.5, "peak_memory": 9, "tensor_memory": 3}


def test_the_result_outranks_what_was_seen_on_the_way(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES, result={"status": "done", "cost": {"seconds": 11.0, "peak_memory": 5}})
    assert run.cost()["seconds"] == 11.0 and run.cost()["peak_memory"] == 5 and run.cost()["tokens"] == 30


def test_final_figures_are_those_of_the_result(tmp_path: Path) -> None:
    accuracy = {"value": 0.5, "low": 0.4, "high": None, "items": 9, "higher_is_better": True}
    result = {"validation": {"loss": 5.25, "prose/loss": 5.25}, "tasks": {"q": {"accuracy": accuracy}}}
    final = write(tmp_path / "a", LINES, result=result).final()
    assert final["validation/loss"] == final["validation/prose/loss"] == 5.25
    assert final["loss"] == 5.0
    assert {name: value for name, value in final.items() if name.startswith("task/")} == {
        "task/q/accuracy": 0.5,
        "task/q/accuracy/low": 0.4,
    }


def test_clearing_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES, plan={}, result={}, trackers={}, environment={}, samples=[])
    for folder in (run.checkpoint_path(3), run.model_path, run.tokenizer_path):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    for path in (run.report_path, run.timing_path, run.lock_path, run.path / "config.json", run.path / "my-notes.txt"):
        path.touch()
    run.clear()
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "my-notes.txt"]
    assert run.status() == "planned"


def test_a_run_is_paused_where_its_plan_says_so(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES, plan={"pauses": [2, 3]})
    run.checkpoint_path(2).mkdir(parents=True)
    assert run.status() == "interrupted", "it went on and was cut off"
    run.checkpoint_path(3).mkdir()
    assert run.status() == "paused"
    other = write(tmp_path / "b", LINES, plan={"pauses": [2]})
    other.checkpoint_path(3).mkdir(parents=True)
    assert other.status() == "interrupted"


def test_a_half_written_last_line_is_left_out_and_read_once_whole(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES[:2])
    with open(run.metrics_path, "a") as handle:
        handle.write('{"step": 2, "lo')
        handle.flush()
        assert [row["step"] for row in run.metrics()] == [0, 1]
        handle.write('ss": 6.0}\n')
    assert run.series("loss").values.tolist() == [7.0, 6.0]


def test_a_damaged_line_inside_is_named(tmp_path: Path) -> None:
    run = write(tmp_path / "a")
    run.metrics_path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(CorruptFile, match="line 2"):
        run.metrics()


def test_recipes_are_read_like_recipes(tmp_path: Path) -> None:
    run = write(tmp_path / "a")
    assert run.recipe()["optimizer"] == {"lr": 0.001}
    assert run.name == "a"
    run.recipe_path.write_text("a: [")
    with pytest.raises(CorruptFile, match=r"recipe\.yaml"):
        run.recipe()


def test_checkpoints_are_the_complete_ones_in_order(tmp_path: Path) -> None:
    run = write(tmp_path / "a")
    assert run.checkpoints() == []
    for name in ("step-00000200", "step-00000030", "step-00000040.tmp", ".step-00000050", "best", "step-123456789"):
        (run.checkpoints_path / name).mkdir(parents=True)
    assert [path.name for path in run.checkpoints()] == ["step-00000030", "step-00000200", "step-123456789"]
    assert run.checkpoint_path(30) == run.checkpoints()[0]


def test_status(tmp_path: Path) -> None:
    assert write(tmp_path / "planned").status() == "planned"
    assert write(tmp_path / "killed", LINES).status() == "interrupted"
    assert write(tmp_path / "failed", LINES, result={"status": "failed"}).status() == "failed"
    done = write(tmp_path / "done", LINES, result={"status": "done"})
    assert done.status() == "done"
    with RunLock(done.path):
        assert done.status() == "done", "its report is written while the lock is still held"
        done.result_path.unlink()
        assert done.status() == "running"
    assert done.status() == "interrupted"


def test_a_killed_process_leaves_an_interrupted_run(tmp_path: Path) -> None:
    run = write(tmp_path / "a", LINES)
    script = "import sys, time; from foretrain.lock import RunLock; from pathlib import Path\n"
    script += "RunLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE, env=os.environ
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert run.status() == "running"
        other.kill()
        other.wait()
    assert run.lock_path.read_text(), "the killed process still stands in the file"
    assert run.status() == "interrupted"


def test_opening_what_is_no_run_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path / "biomedical")
    write(tmp_path / "general")
    (tmp_path / "data").mkdir()
    assert RunDirectory.open(tmp_path / "general").name == "general"
    with pytest.raises(RequestError, match=f"There is no run .*Did you mean {tmp_path}/biomedical"):
        RunDirectory.open(tmp_path / "biomedicla")
    with pytest.raises(RequestError, match=r"data is not a run: it holds no recipe\.yaml"):
        RunDirectory.open(tmp_path / "data")
    with pytest.raises(RequestError, match="holds runs: biomedical, general"):
        RunDirectory.open(tmp_path)
    with pytest.raises(RequestError, match="There are no runs"):
        RunDirectory.open(tmp_path / "nowhere" / "x")


def test_listing(tmp_path: Path) -> None:
    old = write(tmp_path / "old", LINES, plan={"total_steps": 3, "parameters": 7}, result={"status": "done"})
    for path in (old.recipe_path, old.metrics_path, old.result_path):
        os.utime(path, (1e9, 1e9))
    broken = write(tmp_path / "broken")
    broken.metrics_path.write_text("nonsense\n")
    (tmp_path / "not-a-run").mkdir()
    rows = list_runs(tmp_path)
    assert [row["name"] for row in rows] == ["broken", "old"]
    assert rows[0]["status"] == "failed" and "line 1" in rows[0]["error"]
    assert rows[1] | {"status": "done", "step": 3, "total_steps": 3, "parameters": 7, "tokens": 30} == rows[1]
    assert rows[1]["validation/loss"] == 5.5
    json.dumps(rows)
    assert [row["name"] for row in list_runs(tmp_path / "old")] == ["old"]
    with pytest.raises(RequestError, match="There is no folder"):
        list_runs(tmp_path / "none")
