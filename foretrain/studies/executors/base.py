"""Executor: where the jobs of a study run; and Pool, an open one."""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from foretrain.errors import Interrupted, RequestError
from foretrain.parts import Part
from foretrain.signals import Interruption
from foretrain.studies.jobs import Job as Job
from foretrain.studies.jobs import Outcome as Outcome
from foretrain.studies.jobs import interrupted

STOP_SECONDS = 60.0
"""How long jobs that are asked to stop may take over their checkpoints."""


class Executor(Part):
    """Where jobs run, and how many at a time."""

    axis: ClassVar[str] = "executor"

    @abstractmethod
    def open(self, folder: Path) -> Pool:
        """A pool that keeps its logs in `folder`; nothing is started before the first job.

        Raises:
            RequestError: a package is not installed, or the machines that it asks for are not there.
        """


class Pool(ABC):
    """An open executor: gives jobs to slots, and their outcomes back as they come.

    Use it as a context manager; leaving it ends all that it started.

    Args:
        slots: how many jobs run at a time.
        folder: where logs go.

    Attributes:
        stopping: whether the jobs in hand were asked to stop.
    """

    def __init__(self, slots: int, folder: Path) -> None:
        self.slots, self.folder, self.stopping = slots, folder, False
        self._turn: Generator[Outcome, None, None] | None = None

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Run jobs; yields outcomes in the order in which the jobs end. It may be called again, on the same workers.

        On SIGTERM or Ctrl-C no job is begun any more, those in hand are asked to stop, and their outcomes are yielded;
        a second Ctrl-C, or a minute, kills them. An iterator that is dropped before its end kills them at once.

        Raises:
            Interrupted: after the last outcome, if a signal came or a job was interrupted.
        """
        self._end_turn()
        self._turn = self._outcomes(list(jobs))
        return self._turn

    def _outcomes(self, jobs: list[Job]) -> Generator[Outcome, None, None]:
        waiting, running, done = deque(jobs), list[Job](), 0
        self.stopping, deadline = False, 0.0
        with Interruption() as interruption:
            try:
                while running or (waiting and not self.stopping):
                    if interruption.requested and not self.stopping:
                        self.stopping, deadline = True, time.monotonic() + STOP_SECONDS
                        self.interrupt()
                    while waiting and len(running) < self.slots and not self.stopping:
                        running.append(waiting.popleft())
                        self.start(running[-1])
                    if not running:
                        break
                    try:
                        ended = self.poll()
                    except KeyboardInterrupt:
                        self.stopping, deadline, ended = True, 0.0, []
                    if self.stopping and not ended and time.monotonic() > deadline:
                        self.kill()
                        ended = [interrupted(job) for job in running]
                    for outcome in ended:
                        running.remove(outcome.job)
                        done += outcome.status != "interrupted"
                        yield outcome
            finally:
                if running:
                    self.kill()
        if done < len(jobs) or interruption.requested:
            raise Interrupted(f"Interrupted with {done} of {len(jobs)} jobs done; the same command goes on from there.")

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a job; there is a free slot for it."""

    @abstractmethod
    def poll(self) -> list[Outcome]:
        """Wait for a moment (a fraction of a second), and give the outcomes of jobs that have ended."""

    @abstractmethod
    def interrupt(self) -> None:
        """Ask the jobs in hand to stop; their outcomes still come by `poll`."""

    @abstractmethod
    def kill(self) -> None:
        """End the jobs in hand now; they have no outcomes."""

    def close(self) -> None:
        """End all that was started."""
        self._end_turn()

    def _end_turn(self) -> None:
        # An iterator that an exception left half read would keep its jobs, and its signal handlers.
        if self._turn is not None:
            self._turn.close()
            self._turn = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require(module: str, kind: str) -> Any:
    """Import the package that an executor is made of.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RequestError(
            f"executor: {kind} needs the package '{error.name or module}'; install it with "
            f"pip install 'foretrain[{kind}]', or take another executor, such as {{kind: local}}."
        ) from error
