"""Jobs in this process: the same outcomes as from anywhere else, and signals that reach the job."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import Interrupted
from foretrain.studies.executors.base import Job
from foretrain.studies.executors.inline import Inline


@pytest.fixture(autouse=True)
def _samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def job(call: str, **payload: Any) -> Job:
    return Job(call, f"sample_jobs:{call}", payload)


def test_jobs_run_here_one_after_another_on_plain_data(tmp_path: Path) -> None:
    jobs = [job("who"), job("pair", pair=[0]), job("fault"), job("who")]
    with Inline().open(tmp_path) as pool:
        found = list(pool.run(jobs))
    assert [outcome.job for outcome in found] == jobs
    assert [outcome.status for outcome in found] == ["done", "done", "failed", "done"]
    assert found[0].result is not None and found[0].result["pid"] == os.getpid()
    assert found[1].result == {"pair": [1, 2]}, "as it would come from another process"
    assert jobs[1].payload == {"pair": [0]}, "a job has a copy"
    assert found[2].error is not None and str(tmp_path / "logs" / "inline.log") in found[2].error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("call", ["trial", "meet"])
def test_a_signal_stops_the_job_and_begins_no_other(tmp_path: Path, call: str, number: int) -> None:
    """A run stops at a checkpoint; any other work is broken off."""
    said = tmp_path / "started"

    def send() -> None:
        while not said.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread, found = threading.Thread(target=send, daemon=True), []
    thread.start()
    before = signal.getsignal(number)
    slow = job(call, folder=str(tmp_path), says=str(said), waits="/nonexistent/file")
    with Inline().open(tmp_path) as pool, pytest.raises(Interrupted, match="1 of 3"):
        for outcome in pool.run([job("who"), slow, job("who")]):
            found.append(outcome.status)
    thread.join(20)
    assert found == ["done", "interrupted"]
    assert (tmp_path / "checkpoint").exists() == (call == "trial")
    assert signal.getsignal(number) == before


def test_a_signal_between_two_jobs_is_not_lost(tmp_path: Path) -> None:
    for jobs in ([job("who")], [job("who"), job("who")]):
        with Inline().open(tmp_path) as pool, pytest.raises(Interrupted, match=f"1 of {len(jobs)}"):
            for _ in pool.run(jobs):
                os.kill(os.getpid(), signal.SIGTERM)
