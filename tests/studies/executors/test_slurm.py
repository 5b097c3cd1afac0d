"""Slurm through submitit: with its executors for one machine, and with stand-ins for the commands of Slurm."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import Interrupted, RequestError, RunError
from foretrain.studies.executors.base import Job, Pool
from foretrain.studies.executors.slurm import Slurm

submitit = pytest.importorskip("submitit", reason="submitit is not installed (extra [slurm])")

SBATCH = """#!/bin/bash
echo "$@" >> "$FAKE/submitted"; cat "$1" > "$FAKE/script"
id=$(( $(cat "$FAKE/id") + 1 )); echo $id > "$FAKE/id"
SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here SLURM_NODEID=0 SLURM_PROCID=0 \
SLURM_LOCALID=0 setsid bash "$1" > /dev/null 2>&1 < /dev/null &
echo "Submitted batch job $id"
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do case "$1" in --unbuffered) shift;; *) shift 2;; esac; done
echo $BASHPID > "$FAKE/new-$SLURM_JOB_ID"; mv "$FAKE/new-$SLURM_JOB_ID" "$FAKE/pid-$SLURM_JOB_ID"; exec "$@"
"""
SACCT = """#!/bin/bash
shopt -s nullglob
echo "JobID|State|NodeList"
for file in "$FAKE"/pid-*; do
  state=RUNNING; kill -0 "$(cat "$file")" 2>/dev/null || state=NODE_FAIL
  echo "${file##*pid-}|$state|here"
done
"""
SCANCEL = """#!/bin/bash
kill -TERM "$(cat "$FAKE/pid-$1")"
"""

IDS = itertools.count(1000, 1000)
"""submitit remembers the ids of jobs that have ended, so no test may use those of another."""


@pytest.fixture(autouse=True)
def _samples(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.getcwd()]))
    monkeypatch.setattr(submitit.core.core.Job, "_results_timeout_s", 1)
    monkeypatch.setattr(submitit.slurm.slurm.SlurmJob.watcher, "_delay_s", 0.1)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of a Slurm that starts every job at once on this machine."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "id").write_text(str(next(IDS)))
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    return folder


def job(call: str, **payload: Any) -> Job:
    return Job(call, f"sample_jobs:{call}", payload)


def when(path: Path, act: Any) -> threading.Thread:
    def watch() -> None:
        while not (path.exists() and path.read_text()):
            time.sleep(0.01)
        act(int(path.read_text()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def statuses(found: list[str], pool: Pool, jobs: list[Job]) -> list[str]:
    for outcome in pool.run(jobs):
        found.append(outcome.status)
    return found


@pytest.mark.parametrize("kind", ["local", "debug"])
def test_outcomes_are_plain_data(tmp_path: Path, kind: str) -> None:
    part = Slurm.model_validate({"cluster": kind, "slots": 3, "cpus": 2})
    with part.open(tmp_path) as pool:
        found = {outcome.job.name: outcome for outcome in pool.run([job("who"), job("pair"), job("fault")])}
    here = found["who"].result
    assert here is not None and (here["pid"] == os.getpid()) == (kind == "debug")
    assert here["OMP_NUM_THREADS"] == "2" and here["folder"] == os.getcwd()
    assert found["pair"].result == {"pair": [1, 2]}
    assert found["fault"].error is not None and str(tmp_path / "logs" / "slurm.log") in found["fault"].error
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_the_allocation_is_what_was_asked_for(tmp_path: Path, cluster: Path) -> None:
    part = Slurm(partition="long", minutes=90, cpus=4, gpus=1, memory=8, options={"account": "lab"})
    with part.open(tmp_path) as pool:
        (outcome,) = pool.run([job("meet")])
    assert outcome.status == "done", outcome.error
    script = (cluster / "script").read_text()
    for words in ("partition=long", "time=90", "cpus-per-task=4", "gpus-per-node=1", "mem=8GB", "account=lab"):
        assert f"#SBATCH --{words}\n" in script


def test_a_trial_longer_than_its_allocation_goes_on_in_another(tmp_path: Path, cluster: Path) -> None:
    # SIGUSR2 is what submitit asks Slurm to send before the time limit.
    thread = when(tmp_path / "run" / "started", lambda pid: os.kill(pid, signal.SIGUSR2))
    with Slurm().open(tmp_path) as pool:
        (outcome,) = pool.run([job("trial", folder=str(tmp_path / "run"))])
    thread.join(20)
    assert outcome.result == {"resumed": True}
    assert len((cluster / "submitted").read_text().splitlines()) == 2


def test_interruption_cancels_the_allocations_at_a_checkpoint(tmp_path: Path, cluster: Path) -> None:
    thread = when(tmp_path / "run" / "started", lambda pid: os.kill(os.getpid(), signal.SIGTERM))
    found = list[str]()
    with Slurm(slots=1).open(tmp_path) as pool, pytest.raises(Interrupted, match="0 of 2"):
        statuses(found, pool, [job("trial", folder=str(tmp_path / "run")), job("who")])
    thread.join(20)
    assert found == ["interrupted"]
    assert (tmp_path / "run" / "checkpoint").exists()


def test_a_job_that_vanishes_is_failed_with_its_log(tmp_path: Path, cluster: Path) -> None:
    payload = {"deaths": str(tmp_path / "deaths"), "child": str(tmp_path / "child"), "times": 9}
    with Slurm(retries=1).open(tmp_path) as pool:
        (outcome,) = pool.run([job("die", **payload)])
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert (tmp_path / "deaths").read_text() == "xx"
    assert outcome.status == "failed" and outcome.error is not None
    assert "ended without a result (state NODE_FAIL, 2 submitted in all)" in outcome.error
    assert str(tmp_path / "logs" / "slurm") in outcome.error


def test_killing_the_pool_ends_processes_of_this_machine(tmp_path: Path) -> None:
    said = tmp_path / "said"
    jobs = [job("stubborn", says=str(said)), job("meet", waits=str(said))]
    with Slurm(cluster="local").open(tmp_path) as pool:
        assert next(pool.run(jobs)).job.name == "meet"
    pid = int(said.read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RequestError, match=r"no srun on this machine.*\{kind: local\}"):
        Slurm().open(tmp_path)


def test_a_refused_submission_is_told(tmp_path: Path, cluster: Path) -> None:
    (cluster / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: x' >&2; exit 1\n")
    with Slurm(partition="x").open(tmp_path) as pool, pytest.raises(RunError, match="invalid partition specified: x"):
        list(pool.run([job("who")]))
