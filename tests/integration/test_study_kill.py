"""A study that is killed at any moment is finished by the same command, and says the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from foretrain.plain_yaml import format_yaml
from foretrain.studies.commands import study
from tests.processes import finish, start
from tests.studies.tiny_study import study_data

DATA = study_data(
    base={**study_data()["base"], "budget": {"steps": 40}, "checkpoint": {"every": 0.25}},
    arms={"plain": {}, "slow": {"optimizer.lr": 1e-5}, "gone": {"optimizer.lr": 1e30, "stability.clip": None}},
    stopping="successive_halving",
    executor={"kind": "local", "slots": 1},
)


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(child) for key, child in value.items() if key != "seconds"}
    return [without_seconds(child) for child in value] if isinstance(value, list) else value


def said(folder: Path) -> str:
    """What `study.json` says, seconds and the folder's own name aside."""
    text = json.dumps(without_seconds(json.loads((folder / "study.json").read_text())), sort_keys=True)
    return text.replace(str(folder), "FOLDER")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The study in one go, its trials one after another in this process."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "study.yaml").write_text(format_yaml({**DATA, "executor": "inline"}))
    study(folder / "study.yaml", out=folder / "study", quiet=True)
    return said(folder / "study")


def begun(folder: Path) -> tuple[list[str], subprocess.Popen[str]]:
    (folder / "tiny.yaml").write_text(format_yaml(DATA))
    command = ["study", str(folder / "tiny.yaml"), "--out", str(folder / "study"), "--quiet"]
    return command, start(command)


def metrics(folder: Path) -> int:
    """Bytes of figures that all trials have written so far."""
    return sum(path.stat().st_size for path in folder.glob("study/trials/*/*/metrics.jsonl"))


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_killed_in_the_middle_of_a_trial(tmp_path: Path, whole: str) -> None:
    command, process = begun(tmp_path)
    wait_for(lambda: metrics(tmp_path) > 3000)
    process.send_signal(signal.SIGKILL)  # its workers see that it is gone, and stop
    process.communicate()
    assert not (tmp_path / "study" / "study.json").exists()
    finish(start(command))
    assert said(tmp_path / "study") == whole


@pytest.mark.slow
def test_stopped_by_sigterm_it_exits_with_3_and_goes_on(tmp_path: Path, whole: str) -> None:
    command, process = begun(tmp_path)
    wait_for(lambda: metrics(tmp_path) > 3000)
    process.send_signal(signal.SIGTERM)
    assert "same command" in finish(process, code=3)
    finish(start(command))
    assert said(tmp_path / "study") == whole


def test_two_studies_do_not_write_one_directory(tmp_path: Path) -> None:
    command, process = begun(tmp_path)
    lock = tmp_path / "study" / ".lock"
    wait_for(lambda: lock.exists() and lock.read_text())
    process.send_signal(signal.SIGSTOP)  # it holds its lock, however long the other one takes to start
    error = finish(start(command), code=2)
    assert "being written" in error
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, whole: str) -> None:
    chance = random.Random(0)
    for _ in range(8):
        command, process = begun(tmp_path)
        before = metrics(tmp_path)
        wait_for(lambda process=process, before=before: process.poll() is not None or metrics(tmp_path) > before)
        time.sleep(chance.uniform(0, 1.5))
        if process.poll() is not None:
            break
        # The whole family at once, workers too, as a machine that goes down.
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        for number in [process.pid, *map(int, children)]:
            os.kill(number, signal.SIGKILL)
        process.communicate()
    finish(start(command))
    assert said(tmp_path / "study") == whole
