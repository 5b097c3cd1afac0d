"""Worker processes: what they get, what they give back, and every way in which they or the study may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretrain.errors import Interrupted, RunError
from foretrain.studies import machine
from foretrain.studies.executors import base, local
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool
from foretrain.studies.executors.local import Local

STUDY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from foretrain.studies import machine
from foretrain.studies.executors import local
from foretrain.studies.executors.base import Job
machine.gpus = list
local.ORPHAN_SECONDS = float(sys.argv[2])
call, says, folder = sys.argv[3:]
with local.Local(slots=2).open(Path(folder)) as pool:
    jobs = [Job(name, call, {"says": says + name, "folder": folder + "/" + name}) for name in "ab"]
    for outcome in pool.run(jobs):
        print(outcome.status, flush=True)
"""


@pytest.fixture(autouse=True)
def _samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(machine, "gpus", list)


def job(call: str, name: str = "", **payload: Any) -> Job:
    return Job(name or call, f"sample_jobs:{call}", payload)


def one(pool: Pool, call: str, **payload: Any) -> Outcome:
    (outcome,) = pool.run([job(call, **payload)])
    return outcome


def result(pool: Pool, call: str, **payload: Any) -> dict[str, Any]:
    outcome = one(pool, call, **payload)
    assert outcome.status == "done" and outcome.result is not None, outcome.error
    return outcome.result


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def run_into(found: list[str], pool: Pool, jobs: list[Job]) -> None:
    for outcome in pool.run(jobs):
        found.append(outcome.status)


def when(path: Path, act: Callable[[int], None]) -> threading.Thread:
    """Do something with the process whose id appears in a file."""

    def watch() -> None:
        wait_for(lambda: path.exists() and path.read_text() != "")
        act(int(path.read_text()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_workers_are_reused_light_apart_from_the_terminal_and_gone_at_the_end(tmp_path: Path) -> None:
    before = descriptors()
    with Local(slots=1).open(tmp_path) as pool:
        first, second = (result(pool, "who") for _ in range(2))
        assert first == second
        assert alive(first["pid"]) and first["pid"] != os.getpid()
        assert first["session"] == first["pid"], "Ctrl-C in the terminal must not reach a worker"
        assert first["folder"] == os.getcwd()
        assert not first["torch"], "a worker imports torch only when a job does"
        (worker,) = (worker for worker in pool._workers if worker is not None)  # type: ignore[attr-defined]
    assert worker.process.returncode == 0
    assert not alive(first["pid"])
    assert descriptors() == before


def test_no_process_is_started_before_the_first_job(tmp_path: Path) -> None:
    with Local(slots=2).open(tmp_path) as pool:
        assert list(pool.run([])) == []
    assert not (tmp_path / "logs").exists()


def test_threads_and_gpus_of_each_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: ["3", "5"])
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with Local(threads=2).open(tmp_path) as pool:
        assert pool.slots == 2
        # The two wait for each other, so each has a worker of its own.
        pids = [outcome.result for outcome in pool.run([job("meet", says=a, waits=b), job("meet", says=b, waits=a)])]
        seen = [worker.process.pid for worker in pool._workers if worker is not None]  # type: ignore[attr-defined]
        assert sorted(seen) == sorted(pid["pid"] for pid in pids if pid is not None)
        first = result(pool, "who")
        assert (first["OMP_NUM_THREADS"], first["MKL_NUM_THREADS"]) == ("2", "2")
        assert first["OMP_WAIT_POLICY"] == "PASSIVE"
        assert first["CUDA_VISIBLE_DEVICES"] == "3"
        environment = [pool._environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)]  # type: ignore[attr-defined]
        assert environment == ["3", "5", "3", "5"]


def test_slots_fill_the_cores_and_each_keeps_to_its_own(tmp_path: Path) -> None:
    own = sorted(os.sched_getaffinity(0))
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with Local().open(tmp_path) as pool:
        assert pool.slots == machine.core_count()
        if machine.core_count() == len(own) > 1:
            list(pool.run([job("meet", says=a, waits=b), job("meet", says=b, waits=a)]))
            pids = [worker.process.pid for worker in pool._workers if worker is not None]  # type: ignore[attr-defined]
            assert [sorted(os.sched_getaffinity(pid)) for pid in pids] == [[core] for core in own[: len(pids)]]
    if len(own) > 1:
        with Local(slots=1).open(tmp_path) as pool:
            assert result(pool, "who")["cores"] == own, "another study may run on the cores that are left"


@pytest.mark.parametrize(("count", "threads", "slots"), [(8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_slots_by_cores_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, threads: int, slots: int
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: list(range(10, 10 + count)))
    monkeypatch.setattr(machine, "core_count", lambda: count)
    with Local(threads=threads).open(tmp_path) as pool:
        assert pool.slots == slots
        last = pool._cores(slots - 1)  # type: ignore[attr-defined]
        start = 10 + (slots - 1) * threads
        assert last == ([] if threads > count else list(range(start, start + threads)))
    monkeypatch.setattr(machine, "core_count", lambda: 1)  # a container with little time on many cores
    with Local().open(tmp_path) as pool:
        assert pool.slots == 1 and pool._cores(0) == []  # type: ignore[attr-defined]


def test_outcomes_come_in_the_order_in_which_jobs_end(tmp_path: Path) -> None:
    said = str(tmp_path / "said")
    jobs = [job("meet", "slow", waits=said), job("meet", "quick", says=said), job("meet", "last")]
    with Local(slots=2).open(tmp_path) as pool:
        names = [outcome.job.name for outcome in pool.run(jobs)]
    assert names.index("quick") < 2 and sorted(names) == ["last", "quick", "slow"]
    assert names[0] == "quick"


def test_prints_of_libraries_go_to_the_log_and_stdin_is_empty(tmp_path: Path) -> None:
    with Local(slots=1).open(tmp_path) as pool:
        assert result(pool, "shout") == {"stdin": ""}
        assert result(pool, "meet")["pid"]
    log = (tmp_path / "logs" / "worker-0.log").read_text()
    assert all(words in log for words in ('"printed"', '"written"', "from a child", "to stderr"))


def test_payloads_and_results_larger_than_any_pipe(tmp_path: Path) -> None:
    with Local(slots=2).open(tmp_path) as pool:
        for outcome in pool.run([job("big", text="ü" * 1_000_000, send=1_000_000)] * 3):
            assert outcome.result == {"got": 1_000_000, "text": "é\n" * 500_000}


def test_faults_name_their_log_and_leave_the_worker_alive(tmp_path: Path) -> None:
    with Local(slots=1).open(tmp_path) as pool:
        pid = result(pool, "who")["pid"]
        outcome = one(pool, "fault")
        log = tmp_path / "logs" / "worker-0.log"
        assert outcome.status == "failed" and outcome.result is None
        assert outcome.error == f"A fault in sample_jobs:fault: KeyError: 'missing' (the traceback is in {log})."
        assert 'payload["missing"]' in log.read_text()
        assert one(pool, "leave").status == "failed"
        assert result(pool, "who")["pid"] == pid


def test_a_killed_worker_is_replaced_and_its_job_done(tmp_path: Path) -> None:
    payload = {"deaths": str(tmp_path / "deaths"), "child": str(tmp_path / "child")}
    with Local(slots=1).open(tmp_path) as pool:
        before = result(pool, "who")["pid"]
        found = result(pool, "die", times=1, **payload)
        assert found["deaths"] == 1 and found["pid"] != before
        assert not alive(int((tmp_path / "child").read_text())), "what a worker started ends with it"
        assert result(pool, "who")["pid"] == found["pid"]


def test_a_job_whose_workers_keep_dying_fails_in_words_and_the_others_go_on(tmp_path: Path) -> None:
    payload = {"deaths": str(tmp_path / "deaths"), "child": str(tmp_path / "child")}
    with Local(slots=1, retries=1).open(tmp_path) as pool:
        bad, good = pool.run([job("die", times=9, **payload), job("who")])
    assert (bad.status, good.status) == ("failed", "done")
    assert bad.error == (
        "The worker died (2 times): signal 9 (SIGKILL); it may have run out of memory, of which fewer slots need less. "
        f"Its log is {tmp_path / 'logs' / 'worker-0.log'}."
    )
    assert (tmp_path / "deaths").read_text() == "xx"


def test_a_crash_in_native_code_is_named_and_its_place_is_in_the_log(tmp_path: Path) -> None:
    payload = {"deaths": str(tmp_path / "deaths"), "child": str(tmp_path / "child"), "signal": signal.SIGSEGV}
    with Local(slots=1, retries=0).open(tmp_path) as pool:
        outcome = one(pool, "die", times=1, **payload)
    assert outcome.error is not None and "signal 11 (SIGSEGV). Its log" in outcome.error
    assert "in die" in (tmp_path / "logs" / "worker-0.log").read_text()


def test_an_idle_worker_that_is_killed_costs_no_job(tmp_path: Path) -> None:
    with Local(slots=1, retries=0).open(tmp_path) as pool:
        for number in (signal.SIGKILL, signal.SIGTERM):
            pid = result(pool, "who")["pid"]
            os.kill(pid, number)
            wait_for(lambda: not alive(pid))  # noqa: B023
            assert result(pool, "meet")["pid"] != pid


def test_sigterm_stops_the_jobs_at_a_checkpoint_and_begins_no_other(tmp_path: Path) -> None:
    jobs = [job("trial", name, folder=str(tmp_path / name)) for name in "abc"]
    with Local(slots=2).open(tmp_path) as pool:
        term = when(tmp_path / "b" / "started", lambda pid: os.kill(os.getpid(), signal.SIGTERM))
        (tmp_path / "a").mkdir()
        outcomes = []
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="with 0 of 3 jobs done; the same command"):
            for outcome in pool.run(jobs):
                outcomes.append(outcome)
        term.join(20)
        assert signal.getsignal(signal.SIGTERM) == before
        found = {outcome.job.name: outcome.status for outcome in outcomes}
        assert found == {"a": "interrupted", "b": "interrupted"}
        assert not (tmp_path / "c").exists()
        assert all((tmp_path / name / "checkpoint").exists() for name in found)
        # The pool is as good as before.
        (tmp_path / "c").mkdir()
        (tmp_path / "c" / "checkpoint").touch()
        assert [outcome.result for outcome in pool.run(jobs)] == [{"resumed": True}] * 3


def test_a_second_ctrl_c_kills_what_does_not_stop(tmp_path: Path) -> None:
    said = tmp_path / "said"

    def twice(pid: int) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    found = list[str]()
    with Local(slots=1).open(tmp_path) as pool:
        thread = when(said, twice)
        with pytest.raises(Interrupted):
            run_into(found, pool, [job("stubborn", says=str(said))])
        thread.join(20)
    assert found == ["interrupted"]
    assert not alive(int(said.read_text()))


def test_jobs_that_ignore_sigterm_are_killed_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "STOP_SECONDS", 0.3)
    said, found = tmp_path / "said", list[str]()
    with Local(slots=1).open(tmp_path) as pool:
        thread = when(said, lambda pid: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run_into(found, pool, [job("stubborn", says=str(said))])
        thread.join(20)
    assert found == ["interrupted"] and not alive(int(said.read_text()))


def test_an_error_of_the_study_ends_its_jobs_and_gives_the_signals_back(tmp_path: Path) -> None:
    said, before = tmp_path / "said", (signal.getsignal(signal.SIGINT), descriptors())
    jobs = [job("stubborn", says=str(said)), job("meet", waits=str(said))]
    with pytest.raises(RunError), Local(slots=2).open(tmp_path) as pool:
        for _ in pool.run(jobs):
            raise RunError("the study failed")
    assert (signal.getsignal(signal.SIGINT), descriptors()) == before
    assert not alive(int(said.read_text()))


def test_one_worker_that_is_told_to_stop_leaves_the_others_alone(tmp_path: Path) -> None:
    thread = when(tmp_path / "a" / "started", lambda pid: os.kill(pid, signal.SIGTERM))
    found = list[str]()
    with Local(slots=1).open(tmp_path) as pool, pytest.raises(Interrupted, match="1 of 2"):
        run_into(found, pool, [job("trial", "a", folder=str(tmp_path / "a")), job("who")])
    thread.join(20)
    assert found == ["interrupted", "done"]


@pytest.mark.parametrize(("call", "grace"), [("trial", 20.0), ("stubborn", 0.5)])
def test_workers_of_a_killed_study_end(tmp_path: Path, call: str, grace: float) -> None:
    here = str(Path(__file__).parent)
    command = [
        sys.executable,
        "-c",
        STUDY,
        here,
        str(grace),
        f"sample_jobs:{call}",
        str(tmp_path / "said"),
        str(tmp_path),
    ]
    names = [tmp_path / name / "started" if call == "trial" else tmp_path / f"said{name}" for name in "ab"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as study:
        try:
            wait_for(lambda: all(path.exists() and path.read_text() != "" for path in names))
        finally:
            study.send_signal(signal.SIGKILL)
    pids = [int(path.read_text()) for path in names]
    wait_for(lambda: not any(map(alive, pids)), 10.0)
    assert [(tmp_path / name / "checkpoint").exists() for name in "ab"] == [call == "trial"] * 2


def test_a_job_waits_for_the_orphan_that_still_writes_its_run(tmp_path: Path) -> None:
    orphan = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import sample_jobs\n"
        f"sample_jobs.trial({{'folder': {str(tmp_path / 'run')!r}, 'slow': 0.7}})"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", orphan], stderr=subprocess.DEVNULL, env=environment) as process:
        wait_for((tmp_path / "run" / "started").exists)
        process.send_signal(signal.SIGTERM)
        with Local(slots=1).open(tmp_path) as pool:
            assert result(pool, "trial", folder=str(tmp_path / "run")) == {"resumed": True}


def test_a_folder_that_cannot_hold_logs_is_told(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with Local(slots=1).open(tmp_path) as pool, pytest.raises(RunError, match="log of a worker could not be written"):
        one(pool, "who")


def test_the_orphans_grace_is_within_the_wait_for_its_lock() -> None:
    from foretrain.studies.jobs import LOCK_SECONDS

    assert local.ORPHAN_SECONDS < LOCK_SECONDS
    assert issubclass(Local, Executor)
