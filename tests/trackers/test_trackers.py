"""Every tracker against its own package: what was logged is read back from that package's store."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from foretrain.errors import RequestError
from foretrain.parts import find, kinds
from foretrain.trackers.base import Tracker, Trackers, remember, remembered

RECIPE = {"name": "demo", "seed": 0, "budget": {"steps": 4}, "corpus": {"prose": {"path": "x.txt", "weight": 1.0}}}
FIRST = [(1, {"loss": 4.0, "lr": 1e-3}), (2, {"loss": 3.5, "lr": 1e-3}), (3, {"loss": 3.0, "lr": 1e-3})]
# Killed after step 3, resumed from the checkpoint of step 1: steps 2 and 3 come again, with the same figures.
AGAIN = [(2, {"loss": 3.5, "lr": 1e-3}), (3, {"loss": 3.0, "lr": 1e-3}), (4, {"loss": 2.5, "lr": 1e-3})]
LOSS = [(1, 4.0), (2, 3.5), (3, 3.0), (4, 2.5)]


def track(part: Tracker, run: Path, lines: list[tuple[int, dict[str, float]]]) -> None:
    trackers = Trackers([part], warn=pytest.fail)
    trackers.start(run, "demo", RECIPE)
    for step, figures in lines:
        trackers.log(step, {"step": step, **figures})
    trackers.finish()


def test_tensorboard_files_hold_each_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra [track])")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    part = find(Tracker, "tensorboard")()
    track(part, tmp_path, FIRST)
    track(part, tmp_path, AGAIN)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("loss")] == LOSS
    assert events.Scalars("lr")[0].value == pytest.approx(1e-3)
    assert b"budget:" in events.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.slow
def test_mlflow_store_holds_each_step_once_after_a_resume(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed (extra [track])")
    pytest.importorskip("sqlalchemy", reason="mlflow's local store needs sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    part = find(Tracker, "mlflow")(uri=uri, experiment="tests")
    track(part, tmp_path, FIRST)
    track(part, tmp_path, AGAIN)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == LOSS
    assert run.data.params["corpus.prose.weight"] == "1.0"
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")


def test_wandb_keeps_one_run_and_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the client: the real one is tried below, and its offline files are not made for reading."""
    opened: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []

    def init(**settings: Any) -> SimpleNamespace:
        opened.append(settings)
        return SimpleNamespace(log=lambda figures, step: logged.append((figures, step)), finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **options: options))
    part = find(Tracker, "wandb")(project="p", mode="offline", tags=["a"])
    track(part, tmp_path, FIRST)
    track(part, tmp_path, AGAIN)
    assert opened[0]["id"] == opened[1]["id"]
    assert {settings["resume"] for settings in opened} == {"allow"}
    assert opened[0] | {"project": "p", "mode": "offline", "name": "demo", "config": RECIPE, "tags": ["a"]} == opened[0]
    assert logged[0] == ({"loss": 4.0, "lr": 1e-3}, 1)
    other = tmp_path / "other"
    track(part, other, FIRST[:1])
    assert opened[2]["id"] != opened[0]["id"]


@pytest.mark.slow
def test_wandb_itself_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (extra [track])")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    track(find(Tracker, "wandb")(mode="offline"), tmp_path, FIRST)
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"loss" in written.read_bytes()


def test_trackio_database_holds_each_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed (extra [track])")
    # Its folder is fixed when it is imported, so it is tried in a process of its own.
    import os
    import subprocess

    script = """
import json, sys
from pathlib import Path
from foretrain.parts import find
from foretrain.trackers.base import Tracker, remembered
part, run, recipe = find(Tracker, "trackio")(project="tests"), Path(sys.argv[1]), json.loads(sys.argv[2])
for lines in json.loads(sys.argv[3]):
    tracker = part.model_copy(deep=True)
    tracker.start(run, "demo", recipe)
    for step, figures in lines:
        tracker.log(step, figures)
    tracker.finish()
from trackio.sqlite_storage import SQLiteStorage
rows = SQLiteStorage.get_logs("tests", remembered(run, "trackio"))
print("ROWS", json.dumps([(row["step"], row["loss"]) for row in rows]))
"""
    arguments = [str(tmp_path), json.dumps(RECIPE), json.dumps([FIRST, AGAIN])]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    assert [tuple(row) for row in json.loads(line[5:])] == LOSS
    assert done.stdout.strip() == line, "the tracker printed to stdout"


@pytest.mark.parametrize(
    ("kind", "package"),
    [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow.tracking"), ("trackio", "trackio")],
)
def test_a_missing_package_is_named_with_its_extra(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RequestError, match=r"foretrain\[track\]") as caught:
        find(Tracker, kind)().start(tmp_path, "demo", RECIPE)
    assert kind in str(caught.value)


class Faulty(Tracker):
    kind: Literal["faulty_for_tests"] = "faulty_for_tests"
    when: str = "log"

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        if self.when == "start":
            raise OSError("no way in")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        seen.append((self.when, step, dict(figures)))
        if self.when == "log":
            raise ConnectionError("the server is gone\nwith details")


seen: list[tuple[str, int, dict[str, float]]] = []


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(tmp_path: Path) -> None:
    seen.clear()
    warnings: list[str] = []
    trackers = Trackers([Faulty(), Faulty(when="never")], warnings.append)
    trackers.start(tmp_path, "demo", RECIPE)
    trackers.log(1, {"step": 1, "loss": 2.0, "skipped": "spike", "flag": True, "none": None})
    trackers.log(2, {"step": 2, "loss": 1.0})
    trackers.finish()
    assert seen == [("log", 1, {"loss": 2.0}), ("never", 1, {"loss": 2.0}), ("never", 2, {"loss": 1.0})]
    assert len(warnings) == 1 and "the server is gone" in warnings[0] and "with details" not in warnings[0]


def test_a_tracker_that_cannot_start_is_a_wrong_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="faulty_for_tests cannot be started: OSError: no way in"):
        Trackers([Faulty(when="start")], pytest.fail).start(tmp_path, "demo", RECIPE)


def test_identities_are_kept_per_tracker(tmp_path: Path) -> None:
    assert remembered(tmp_path, "a") is None
    remember(tmp_path, "a", "1")
    remember(tmp_path, "b", "2")
    assert (remembered(tmp_path, "a"), remembered(tmp_path, "b")) == ("1", "2")


def test_the_family_lists_its_parts_without_their_packages() -> None:
    assert {"mlflow", "tensorboard", "trackio", "wandb"} <= set(kinds(Tracker))
