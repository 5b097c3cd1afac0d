"""A run that is paused and sent on ends as one that was left alone; a light one leaves its figures only."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import foretrain as ft
from foretrain.budget import pause_step
from foretrain.checkpoints import Checkpointer
from foretrain.errors import RequestError
from foretrain.journal import read_journal
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from tests.processes import finish, start_python
from tests.tiny import tiny_data

STEPS = 12


def recipe(**changes: Any) -> Any:
    data = {"budget": {"steps": STEPS}, "checkpoint": {"every": 5, "keep": 2}, "precision": "bf16"}
    return make_recipe(tiny_data(**{**data, "evaluation": {"every": 3, "tokens": 512}, **changes}))


def run(folder: Path, *, keep: Any = "figures", until: float | None = None, **changes: Any) -> RunDirectory:
    return ft.run(recipe(**changes), out=folder, until=until, keep=keep, quiet=True)


def weights(found: RunDirectory) -> dict[str, torch.Tensor]:
    tree = Checkpointer(found.checkpoints_path, owner=False).load(STEPS)
    return dict(tree["model"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run(tmp_path_factory.mktemp("whole") / "run")


def same_weights(one: RunDirectory, other: RunDirectory) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def validated(found: RunDirectory) -> list[int]:
    return [line["step"] for line in read_journal(found.metrics_path) if "validation/loss" in line]


def test_a_run_paused_where_it_is_evaluated_anyway_ends_bit_identical(whole: RunDirectory, tmp_path: Path) -> None:
    for until, stands in ((0.25, 3), (0.5, 6), (0.75, 9)):
        paused = run(tmp_path / "run", until=until)
        assert (paused.status(), paused.result(), paused.metrics()[-1]["step"]) == ("paused", None, stands)
        assert paused.checkpoints()[-1].name == f"step-{stands:08d}"
    done = run(tmp_path / "run")
    assert done.status() == "done"
    assert done.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
    assert same_weights(done, whole)
    first, second = done.result(), whole.result()
    assert first is not None and second is not None
    assert first["validation"] == second["validation"]
    assert first["cost"]["tensor_memory"] == second["cost"]["tensor_memory"] > 0
    assert [path.name for path in done.checkpoints()] == [path.name for path in whole.checkpoints()]


def test_off_the_grid_the_pause_adds_its_evaluation_and_nothing_else(whole: RunDirectory, tmp_path: Path) -> None:
    run(tmp_path / "run", until=0.4)
    done = run(tmp_path / "run")
    lines, plain = read_journal(done.metrics_path), read_journal(whole.metrics_path)
    assert validated(done) == sorted([*validated(whole), 5])
    extra = next(line for line in lines if line["step"] == 5 and "validation/loss" in line)
    assert [line for line in lines if line is not extra] == plain
    assert same_weights(done, whole)


def test_the_same_pause_again_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = run(tmp_path / "run", until=0.4)
    before = {path: path.stat().st_mtime_ns for path in paused.path.rglob("*") if path.name != ".lock"}
    monkeypatch.setattr("foretrain.running.make_plan", lambda *given, **named: pytest.fail("it should not be planned"))
    for until in (0.4, 0.1):
        assert run(tmp_path / "run", until=until).status() == "paused"
    after = {path: path.stat().st_mtime_ns for path in paused.path.rglob("*") if path.name != ".lock"}
    assert after == before
    with pytest.raises(RequestError, match=r"optimizer\.lr"):
        run(tmp_path / "run", until=0.4, optimizer={"lr": 0.5})


SCRIPT = """
import sys
import foretrain as ft
from tests.integration.test_pause import recipe
ft.run(recipe(), out=sys.argv[1], until=float(sys.argv[2]), keep="figures", quiet=True)
"""


# The second checkpoint of this run is that of the pause at step 7; step 8 (of the second command) is past it.
@pytest.mark.parametrize(("point", "until"), [("mid-checkpoint:2", 0.6), ("mid-step:2", 0.9)])
def test_killed_around_a_pause(point: str, until: float, tmp_path: Path) -> None:
    def command(folder: str, until: float, code: int = 0, **environment: str) -> None:
        finish(start_python(SCRIPT, [str(tmp_path / folder), str(until)], **environment), code)

    for share in (0.6, 0.9):
        run(tmp_path / "plain", until=share)
    plain = run(tmp_path / "plain")
    if until == 0.9:
        run(tmp_path / "run", until=0.6)
    command("run", until, -signal.SIGKILL, FORETRAIN_FAULT=point)
    for share in (0.6, 0.9):
        run(tmp_path / "run", until=share)
    assert validated(plain) == [0, 3, 6, 7, 9, 11, 12]
    done = run(tmp_path / "run")
    assert done.metrics_path.read_bytes() == plain.metrics_path.read_bytes()
    assert same_weights(done, plain)


def test_a_damaged_checkpoint_of_a_pause_changes_no_figure(tmp_path: Path) -> None:
    run(tmp_path / "plain", until=0.6)
    plain = run(tmp_path / "plain")
    damaged = run(tmp_path / "run", until=0.6).checkpoints()[-1]
    assert damaged.name.endswith("7")
    (damaged / "structure.json").write_text("{}")
    done = run(tmp_path / "run")
    assert done.metrics_path.read_bytes() == plain.metrics_path.read_bytes()


def test_a_budget_in_flops_pauses_too_and_one_in_minutes_is_refused(whole: RunDirectory, tmp_path: Path) -> None:
    flops = whole.plan()["flops_per_step"]
    paused = run(tmp_path / "run", until=0.5, budget={"flops": 4 * flops})
    assert paused.plan()["total_steps"] == 4 and paused.metrics()[-1]["step"] == 2
    with pytest.raises(RequestError, match="until: a budget in minutes says when the run ends"):
        run(tmp_path / "other", until=0.5, budget={"minutes": 1})
    for share in (-0.1, 0.0, 1.5):
        with pytest.raises(RequestError, match="between 0 and 1"):
            run(tmp_path / "other", until=share)
    assert not (tmp_path / "other").exists()


def test_the_step_of_a_pause() -> None:
    assert [pause_step(until, 12) for until in (0.01, 0.25, 0.4, 0.99)] == [1, 3, 5, 12]


def test_a_pause_that_rounds_to_the_end_is_the_end(tmp_path: Path) -> None:
    assert run(tmp_path / "run", until=0.99).status() == "done"
    assert run(tmp_path / "run", until=0.5).status() == "done"


# Light runs --------------------------------------------------------------------------------------------------------


def test_figures_alone_are_those_of_a_whole_run(whole: RunDirectory, tmp_path: Path) -> None:
    full = run(tmp_path / "run", keep="all")
    assert {path.name for path in full.path.iterdir()} - {path.name for path in whole.path.iterdir()} == {
        "model",
        "samples.json",
        "report.html",
    }
    first, second = full.result(), whole.result()
    assert first is not None and second is not None
    for result in (first, second):
        del result["cost"]["seconds"], result["cost"]["peak_memory"]
    assert first == second
    assert full.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


def test_a_light_run_is_exported_sampled_and_reported_from_its_checkpoint(tmp_path: Path) -> None:
    full, light = run(tmp_path / "full", keep="all"), run(tmp_path / "light")
    model = ft.export(light, out=tmp_path / "model")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (model / name).read_bytes() == (full.model_path / name).read_bytes()
    card = (model / "README.md").read_text(encoding="utf-8")
    assert f"| validation loss | {light.final()['validation/loss']:.4f} |" in card
    assert ft.sample(light, ["The "], tokens=5) == ft.sample(full, ["The "], tokens=5)
    assert "not ended" not in ft.report(light).read_text(encoding="utf-8")
    light.report_path.unlink()
    assert run(light.path, keep="figures").report_path.exists() is False
    assert run(light.path, keep="all").report_path.exists() is True
