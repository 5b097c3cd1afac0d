"""Jobs in worker processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

import foretrain
from foretrain.errors import RunError
from foretrain.files import failed_write
from foretrain.parts import Facts
from foretrain.studies import machine
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool
from foretrain.studies.jobs import interrupted
from foretrain.studies.worker import Lines

ORPHAN_SECONDS = 20.0
"""How long the job of a study that was killed may take over its checkpoint."""
_TICK = 0.2
_CLOSE_SECONDS = 5.0


class Local(Executor):
    """Long-lived worker processes on this machine, one a slot, that share its cores or GPUs.

    Where the slots take up all cores, each worker keeps to its own.
    """

    kind: Literal["local"] = "local"
    facts: ClassVar[Facts] = Facts(answers="where do trials run? in worker processes of this machine")

    slots: int | None = Field(None, ge=1)
    """How many trials run side by side; unset: one a GPU, or as many as the cores carry at that many threads."""
    threads: int = Field(1, ge=1)
    """Threads of each worker. Small models are fastest with 1."""
    retries: int = Field(1, ge=0)
    """How often a job is begun again whose worker died (killed, out of memory)."""

    def open(self, folder: Path) -> Pool:
        gpus, count = machine.gpus(), machine.core_count()
        slots = self.slots or len(gpus) or max(1, count // self.threads)
        return LocalPool(slots, folder, self.threads, self.retries, gpus)


class Worker:
    """A worker process, seen from the study.

    Args:
        number: which slot it is.
        folder: where its log goes.
        cores: the cores it keeps to; empty for any.
        environment: variables that it gets besides those of this process.

    Raises:
        RunError: the process cannot be started.
    """

    def __init__(self, number: int, folder: Path, cores: list[int], environment: Mapping[str, str]) -> None:
        self.job: Job | None = None
        self.deaths = 0
        self.log = (folder / "logs" / f"worker-{number}.log").absolute()
        self._lines = Lines()
        self.outcomes, theirs = os.pipe()
        os.set_blocking(self.outcomes, False)
        try:
            self.process = self._started(theirs, environment)
        except BaseException:
            os.close(self.outcomes)
            raise
        finally:
            os.close(theirs)
        settings = {"path": [path or os.getcwd() for path in sys.path], "folder": os.getcwd(), "log": str(self.log)}
        self._send({**settings, "cores": cores, "grace": ORPHAN_SECONDS})

    def _started(self, outcomes: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise failed_write("The log of a worker", self.log.parent, error) from error
        try:
            return subprocess.Popen(
                [sys.executable, "-u", "-m", "foretrain.studies.worker", str(outcomes)],
                # From the folder that holds this package, the worker cannot find another one.
                cwd=Path(foretrain.__file__).parent.parent,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(outcomes,),
                bufsize=0,
                # Ctrl-C in a terminal goes to the study alone, which asks its workers to stop.
                start_new_session=True,
            )
        except OSError as error:
            raise RunError(f"A worker process could not be started: {error.strerror or error}.") from error
        finally:
            os.close(log)

    def give(self, job: Job, deaths: int = 0) -> None:
        """Send it a job, whose earlier workers died so many times."""
        self.job, self.deaths = job, deaths
        self._send(job.plain())

    def _send(self, value: Any) -> None:
        assert self.process.stdin is not None
        view = memoryview(json.dumps(value).encode() + b"\n")
        # A worker that is dead is found by the next look at it.
        with contextlib.suppress(BrokenPipeError):
            while view:
                view = view[os.write(self.process.stdin.fileno(), view) :]

    def ended(self) -> bool:
        """Whether the process has ended. It is kept as a zombie until `end`, so that its id stays its own."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def read(self) -> tuple[Outcome | None, bool]:
        """The outcome of its job, if it has come; and whether the worker is dead, or will say no more."""
        dead, outcome = self.ended(), None  # in this order: what it wrote before it ended is there to read
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.outcomes, 1 << 16):
                for line in self._lines.feed(data):
                    assert self.job is not None
                    outcome, self.job = Outcome(self.job, **json.loads(line)), None
            dead = True
        return outcome, dead

    def stop(self) -> None:
        """Ask its job to stop."""
        os.kill(self.process.pid, signal.SIGTERM)

    def dismiss(self) -> None:
        """Tell it that there are no more jobs."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self, seconds: float = 0.0) -> int:
        """End it and its children, at once or after some seconds for itself; gives its exit code."""
        self.dismiss()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.ended():
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        os.close(self.outcomes)
        return self.process.wait()


class LocalPool(Pool):
    """Worker processes, each started for the first job that needs it.

    Args:
        slots: how many.
        folder: holds `logs/worker-K.log`.
        threads: of each.
        retries: how often a job is given to a new worker after one died of it.
        gpus: names of the GPUs that they share.
    """

    def __init__(self, slots: int, folder: Path, threads: int, retries: int, gpus: list[str]) -> None:
        super().__init__(slots, folder)
        self.threads, self.retries, self.gpus = threads, retries, gpus
        self._workers: list[Worker | None] = [None] * slots
        self._selector = selectors.DefaultSelector()

    def start(self, job: Job) -> None:
        free = [(worker is None, slot) for slot, worker in enumerate(self._workers) if worker is None or not worker.job]
        self._give(min(free)[1], job)

    def _give(self, slot: int, job: Job, deaths: int = 0) -> None:
        worker = self._workers[slot]
        if worker is not None and worker.read()[1]:  # it died between two jobs, of which no job is to blame
            self._end(slot, worker)
            worker = None
        if worker is None:
            worker = self._workers[slot] = Worker(slot, self.folder, self._cores(slot), self._environment(slot))
            self._selector.register(worker.outcomes, selectors.EVENT_READ)
        worker.give(job, deaths)

    def _cores(self, slot: int) -> list[int]:
        # Slots that leave cores free may share them with another study, which would keep to the same first ones.
        own, count = machine.cores(), machine.core_count()
        if not hasattr(os, "sched_setaffinity") or count < len(own) or self.slots != len(own) // self.threads:
            return []
        return own[slot * self.threads : (slot + 1) * self.threads]

    def _environment(self, slot: int) -> dict[str, str]:
        gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
        return {**machine.thread_variables(self.threads), **gpu}

    def poll(self) -> list[Outcome]:
        self._selector.select(_TICK)
        found = []
        for slot, worker in enumerate(self._workers):
            if worker is not None:
                outcome, dead = worker.read()
                if dead:
                    outcome = self._bury(slot, worker) or outcome
                if outcome is not None:
                    found.append(outcome)
        return found

    def _bury(self, slot: int, worker: Worker) -> Outcome | None:
        """Take a dead worker away; its job is begun anew, or failed."""
        job, code = worker.job, self._end(slot, worker)
        if job is None:
            return None
        if self.stopping:
            return interrupted(job)
        if worker.deaths < self.retries:
            self._give(slot, job, worker.deaths + 1)
            return None
        times = f" ({worker.deaths + 1} times)" if worker.deaths else ""
        return Outcome(job, None, f"The worker died{times}: {_cause(code)}. Its log is {worker.log}.", "failed")

    def _end(self, slot: int, worker: Worker, seconds: float = 0.0) -> int:
        self._selector.unregister(worker.outcomes)
        self._workers[slot] = None
        return worker.end(seconds)

    def interrupt(self) -> None:
        for worker in self._workers:
            if worker is not None and worker.job is not None:
                worker.stop()

    def kill(self) -> None:
        for slot, worker in enumerate(self._workers):
            if worker is not None and worker.job is not None:
                self._end(slot, worker)

    def close(self) -> None:
        super().close()
        workers = [(slot, worker) for slot, worker in enumerate(self._workers) if worker is not None]
        for _, worker in workers:
            worker.dismiss()
        for slot, worker in workers:
            self._end(slot, worker, _CLOSE_SECONDS)
        self._selector.close()


def _cause(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    memory = "; it may have run out of memory, of which fewer slots need less" if -code == signal.SIGKILL else ""
    return f"signal {-code} ({name}){memory}"
