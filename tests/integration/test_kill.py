"""A run that is killed at any instant and started again ends bit-identical to one that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from foretrain.journal import read_journal
from foretrain.run_directory import RunDirectory
from tests.processes import fingerprint, finish, start, write_recipe
from tests.tiny import tiny_data

STEPS = 12
DATA = tiny_data(
    budget={"steps": STEPS},
    checkpoint={"every": 3, "keep": 2},
    evaluation={"every": 4, "tokens": 1024},
    steering=[],
    precision="bf16",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, cache: str) -> tuple[bytes, str]:
    folder = tmp_path_factory.mktemp("untouched")
    finish(start(["run", str(write_recipe(folder, DATA)), "--out", str(folder / "run")], FORETRAIN_CACHE=cache))
    return fingerprint(folder / "run")


@pytest.mark.parametrize("point", ["mid-step:5", "mid-checkpoint:2", "mid-rename:2"])
def test_killed_at_a_named_point(point: str, untouched: tuple[bytes, str], cache: str, tmp_path: Path) -> None:
    arguments = ["run", str(write_recipe(tmp_path, DATA)), "--out", str(tmp_path / "run")]
    finish(start(arguments, FORETRAIN_FAULT=point, FORETRAIN_CACHE=cache), code=-signal.SIGKILL)
    assert RunDirectory(tmp_path / "run").result() is None
    error = finish(start(arguments, FORETRAIN_CACHE=cache))
    assert "resuming at step" in error
    assert fingerprint(tmp_path / "run") == untouched


@pytest.mark.slow
def test_killed_at_twenty_random_instants(untouched: tuple[bytes, str], cache: str, tmp_path: Path) -> None:
    generator = random.Random(7)
    arguments = ["run", str(write_recipe(tmp_path, DATA)), "--out", str(tmp_path / "run")]
    kills = 0
    for trial in range(20):
        run = tmp_path / f"run-{trial}"
        arguments[-1] = str(run)
        while True:
            process = start(arguments, FORETRAIN_CACHE=cache)
            # The clock starts once the directory appears, so that kills fall on training and closing, not on imports.
            deadline = time.monotonic() + 120
            while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            try:
                process.wait(timeout=generator.uniform(0.0, 1.5))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0
                break
            if generator.random() < 0.5:
                finish(start(arguments, FORETRAIN_CACHE=cache))
                break
        assert fingerprint(run) == untouched, f"trial {trial}"
    assert kills >= 10


def test_sigterm_writes_a_checkpoint_and_exits_with_3(untouched: tuple[bytes, str], cache: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["run", str(write_recipe(tmp_path, DATA)), "--out", str(run)]
    process = start(arguments, FORETRAIN_CACHE=cache, FORETRAIN_FAULT="term-mid-step:5")
    error = finish(process, code=3)
    assert "the same command resumes" in error
    assert RunDirectory(run).checkpoints()[-1].name == "step-00000005"
    finish(start(arguments, FORETRAIN_CACHE=cache))
    assert fingerprint(run) == untouched


def test_a_corrupt_checkpoint_is_named_and_the_one_before_it_used(
    untouched: tuple[bytes, str], cache: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["run", str(write_recipe(tmp_path, DATA)), "--out", str(run)]
    finish(start(arguments, FORETRAIN_CACHE=cache, FORETRAIN_FAULT="mid-step:11"), code=-signal.SIGKILL)
    newest = RunDirectory(run).checkpoints()[-1]
    victim = next(newest.glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    error = finish(start(arguments, FORETRAIN_CACHE=cache))
    assert newest.name in error
    assert fingerprint(run) == untouched


def test_metrics_lines_are_whole_and_in_order(untouched: tuple[bytes, str], tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(untouched[0])
    lines = read_journal(path)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if "validation/loss" in line] == [0, 4, 8, 12]
    assert all({"step", "tokens", "flops"} <= line.keys() for line in lines)
