"""One process at a time writes to a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from foretrain.errors import RequestError
from foretrain.lock import RunLock, patient

HOLDER = """
import sys, time
from pathlib import Path
from foretrain.lock import RunLock, patient
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_holder_is_refused_with_the_firsts_process(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    with RunLock(run), pytest.raises(RequestError, match=rf"process {os.getpid()}\."):
        RunLock(run).acquire()
    with RunLock(run):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match=rf"process {holder.pid}\."):
            RunLock(tmp_path).acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / ".lock").read_text() == f"{holder.pid}\n"  # the name stays, the lock doesn't
        with RunLock(tmp_path):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads: this child does nothing but wait
def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    ready, done = os.pipe(), os.pipe()
    lock = RunLock(tmp_path)
    lock.acquire()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        lock.release()
        with RunLock(tmp_path):
            pass
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *done):
            os.close(end)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="cannot be written"):
        RunLock(tmp_path / "file" / "run").acquire()


def test_a_patient_process_waits_for_the_holder_to_end(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with patient(0.2), pytest.raises(RequestError, match=rf"process {holder.pid}\."):
            RunLock(tmp_path).acquire()
        timer = threading.Timer(0.3, holder.kill)
        timer.start()
        with patient(30):
            RunLock(tmp_path).acquire()
        timer.join()
    with pytest.raises(RequestError):
        RunLock(tmp_path).acquire()  # not patient any more
