"""Jobs in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal

from foretrain.parts import Facts
from foretrain.signals import sigterm_interrupts
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool
from foretrain.studies.jobs import perform


class Inline(Executor):
    """One job after another in this process: for smoke tests and debuggers. A fault in native code ends the study."""

    kind: Literal["inline"] = "inline"
    facts: ClassVar[Facts] = Facts(answers="where do trials run? one after another in the process of the study")

    def open(self, folder: Path) -> Pool:
        return InlinePool(1, folder)


class InlinePool(Pool):
    """Runs a job when its outcome is asked for. A signal reaches the job itself, and no job is begun after it."""

    _job: Job | None = None

    def start(self, job: Job) -> None:
        self._job = job

    def poll(self) -> list[Outcome]:
        assert self._job is not None
        # A copy, as from any other executor: a job cannot change what the study holds.
        job, self._job = self._job, None
        copy = Job(job.name, job.call, json.loads(json.dumps(job.payload)))
        with sigterm_interrupts():
            outcome = perform(copy, self.folder / "logs" / "inline.log")
        self.stopping = self.stopping or outcome.status == "interrupted"
        return [Outcome(job, **outcome.plain())]

    def interrupt(self) -> None:
        """A job in hand was stopped by the signal itself."""

    def kill(self) -> None:
        """A job in hand has ended before anything else happens in this process."""
