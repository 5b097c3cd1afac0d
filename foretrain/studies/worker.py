"""A worker: a long-lived process that runs one job after another for the study that started it.

`python -m foretrain.studies.worker FD` reads lines of JSON from stdin (first its settings, then jobs) and writes an
outcome for each job to the file descriptor FD, so that nothing a library prints can get among them. It imports only
what its jobs need. When the study is gone (stdin ends), the job in hand is asked to stop by SIGTERM, and after a grace
the process and its children end in any case.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from foretrain.studies.jobs import Job, Outcome, interrupted, perform

_LOOK = 1.0
"""Seconds between two looks at whether the parent lives, for the case that another process holds stdin's other end."""


class Lines:
    """Puts the pieces that come out of a pipe together to lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole with this piece, without their ends."""
        if b"\n" not in data:
            self._rest += data
            return []
        first, *others = data.split(b"\n")
        whole, self._rest = [bytes(self._rest + first), *others], bytearray()
        self._rest += whole.pop()
        return whole


class _Stop:
    """SIGTERM: interrupts the job in hand, once; and no job is begun after it.

    Args:
        jobs: the queue that the worker waits on.
    """

    def __init__(self, jobs: queue.SimpleQueue[Job | None]) -> None:
        self.jobs, self.requested = jobs, False
        self._raise = False
        signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        first, self.requested = not self.requested, True
        self.jobs.put(None)  # wakes an idle worker; a simple queue may be filled from a signal handler
        if first and self._raise:
            raise KeyboardInterrupt

    def perform(self, job: Job, log: Path) -> Outcome:
        """Run a job, unless it is not wanted any more."""
        try:
            self._raise = True
            # Looked at once the handler raises: a signal that came before is seen here, a later one raises.
            return interrupted(job) if self.requested else perform(job, log)
        except KeyboardInterrupt:
            return interrupted(job)
        finally:
            self._raise = False


class _Inbox(threading.Thread):
    """Reads stdin all the time: jobs go to a queue, and the end of the study is noticed while a job runs."""

    def __init__(self, lines: Iterator[bytes], jobs: queue.SimpleQueue[Job | None], grace: float) -> None:
        super().__init__(daemon=True)
        self.lines, self.jobs, self.grace = lines, jobs, grace
        self.finished = threading.Event()

    def run(self) -> None:
        for line in self.lines:
            self.jobs.put(Job(**json.loads(line)))
        # The study is gone, or has no more jobs. An idle worker ends by itself; a job in hand writes its checkpoint.
        self.jobs.put(None)
        if not self.finished.wait(0.2):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self.grace)
        os.killpg(0, signal.SIGKILL)


def _lines(source: int) -> Iterator[bytes]:
    """Lines of a pipe until it ends or the parent does."""
    parent, lines = os.getppid(), Lines()
    while os.getppid() == parent:
        if select.select([source], [], [], _LOOK)[0]:
            data = os.read(source, 1 << 16)
            if not data:
                return
            yield from lines.feed(data)


def _take_stdin() -> int:
    """Stdin under another number: a job that reads stdin finds it empty, and eats no job."""
    source = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return source


def _follow(settings: dict[str, Any]) -> None:
    if settings["cores"]:
        os.sched_setaffinity(0, settings["cores"])
    sys.path[:] = settings["path"]
    os.chdir(settings["folder"])


def main() -> None:
    """Work until stdin ends, or until a job was told to stop."""
    outcomes = int(sys.argv[1])
    os.set_inheritable(outcomes, False)
    faulthandler.enable()
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    stop = _Stop(jobs)
    lines = _lines(_take_stdin())
    settings = json.loads(next(lines, b"null"))
    if settings is None:  # the study was gone at once
        return
    _follow(settings)
    inbox = _Inbox(lines, jobs, settings["grace"])
    inbox.start()
    # A study that is gone reads no outcomes.
    with contextlib.suppress(BrokenPipeError), open(outcomes, "wb") as out:
        while not stop.requested and (job := jobs.get()) is not None:
            outcome = stop.perform(job, Path(settings["log"]))
            out.write(json.dumps(outcome.plain()).encode() + b"\n")
            out.flush()
    inbox.finished.set()


if __name__ == "__main__":
    main()
