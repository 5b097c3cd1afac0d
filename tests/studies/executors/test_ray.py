"""Ray: one that is started on this machine. Its processes take a while to start, so this is a slow test."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from foretrain.errors import Interrupted, RequestError
from foretrain.studies.executors.base import Job
from foretrain.studies.executors.ray import Ray

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="ray is not installed (extra [ray])")


@pytest.fixture(scope="module")
def cluster() -> Iterator[ModuleType]:
    here = str(Path(__file__).parent)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.getcwd()])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def job(call: str, name: str = "", **payload: Any) -> Job:
    return Job(name or call, f"sample_jobs:{call}", payload)


def test_jobs_fail_die_and_come_back_as_anywhere(tmp_path: Path, cluster: ModuleType) -> None:
    payload = {"deaths": str(tmp_path / "deaths"), "child": str(tmp_path / "child")}
    with Ray(retries=1).open(tmp_path) as pool:
        assert pool.slots == 2
        jobs = [job("who"), job("pair"), job("fault"), job("die", times=1, **payload)]
        found = {outcome.job.name: outcome for outcome in pool.run(jobs)}
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
        assert found["who"].result is not None and found["who"].result["pid"] != os.getpid()
        assert found["who"].result["folder"] == os.getcwd() and found["who"].result["OMP_NUM_THREADS"] == "1"
        assert found["pair"].result == {"pair": [1, 2]}
        assert found["fault"].status == "failed" and str(tmp_path / "logs" / "ray.log") in str(found["fault"].error)
        assert found["die"].status == "done"
        (tmp_path / "deaths").unlink()
        (lost,) = pool.run([job("die", times=9, **payload)])
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
        assert lost.status == "failed" and lost.error is not None and lost.error.startswith("Ray lost the task")
        assert (tmp_path / "deaths").read_text() == "xx"
    assert cluster.is_initialized(), "a Ray that was there before is left as it was"


def test_interruption_stops_tasks_at_a_checkpoint(tmp_path: Path, cluster: ModuleType) -> None:
    def send() -> None:
        while not (tmp_path / "run" / "started").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread, found = threading.Thread(target=send, daemon=True), []
    thread.start()
    jobs = [job("trial", folder=str(tmp_path / "run"), slow=0.5), job("who")]
    with Ray(slots=1).open(tmp_path) as pool:
        with pytest.raises(Interrupted, match="0 of 2"):
            for outcome in pool.run(jobs):
                found.append(outcome.status)
                assert (tmp_path / "run" / "checkpoint").exists()
        assert [outcome.status for outcome in pool.run(jobs)] == ["done", "done"]
    thread.join(20)
    assert found == ["interrupted"]


def test_a_killed_pool_leaves_no_task(tmp_path: Path, cluster: ModuleType) -> None:
    said = tmp_path / "said"
    with Ray().open(tmp_path) as pool:
        assert next(pool.run([job("stubborn", says=str(said)), job("meet", waits=str(said))])).job.name == "meet"
    deadline = time.monotonic() + 20
    while Path(f"/proc/{said.read_text()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_cluster_too_small_for_one_trial_is_told(tmp_path: Path, cluster: ModuleType) -> None:
    with pytest.raises(RequestError, match="has 2 cores and 0 GPUs, too few for one trial"):
        Ray(gpus=1).open(tmp_path)


def test_a_ray_of_its_own_is_shut_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with Ray(slots=1).open(tmp_path) as pool:
        (outcome,) = pool.run([Job("x", "foretrain.checks.sample_jobs:answer", {"a": 1})])
    assert outcome.result == {"a": 1}
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == before
