"""Jobs in allocations of a Slurm cluster, through submitit."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.errors import RequestError, RunError
from foretrain.parts import Facts
from foretrain.signals import sigterm_interrupts
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool, require
from foretrain.studies.jobs import interrupted, perform
from foretrain.studies.machine import thread_variables

_TICK = 0.2
_KILL_SECONDS = 5.0


class Slurm(Executor):
    """One Slurm job for each job of the study, submitted by submitit.

    The study itself waits on the machine that submits. Its folder and the data lie on a file system that the nodes
    share. A trial that is longer than `minutes` goes on from its checkpoint in another allocation.
    """

    kind: Literal["slurm"] = "slurm"
    facts: ClassVar[Facts] = Facts(answers="where do trials run? on a Slurm cluster")

    partition: str | None = None
    """Queue; unset: the cluster's default."""
    minutes: int = Field(240, ge=1)
    """Time limit of an allocation. 90 seconds before its end the trial writes a checkpoint and stops."""
    cpus: int = Field(1, ge=1)
    """Cores, and threads, of each trial."""
    gpus: int = Field(0, ge=0)
    """GPUs of each trial."""
    memory: float | None = Field(None, gt=0)
    """Memory of each trial, in GB; unset: the cluster's default."""
    options: dict[str, str | int] = {}
    """Further options of sbatch, such as `{account: lab, qos: long}`."""
    slots: int = Field(64, ge=1)
    """How many allocations are queued or running at a time."""
    retries: int = Field(3, ge=0)
    """How often a job is submitted again that was stopped by its time limit or by preemption, or that vanished."""
    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """`local`: processes of this machine in place of allocations; `debug`: this process. Both are for trying it out."""

    def open(self, folder: Path) -> Pool:
        submitit = require("submitit", self.kind)
        logs = folder.absolute() / "logs" / "slurm"
        try:
            submitter = submitit.AutoExecutor(folder=logs, cluster=self.cluster)
        except RuntimeError as error:
            raise RequestError(
                "executor: slurm: there is no srun on this machine. Start the study where jobs are submitted, or take "
                "another executor, such as {kind: local}."
            ) from error
        submitter.update_parameters(
            name="foretrain",
            timeout_min=self.minutes,
            nodes=1,
            tasks_per_node=1,
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus or None,
            mem_gb=self.memory,
            slurm_partition=self.partition,
            slurm_additional_parameters=dict(self.options) or None,
        )
        slots = 1 if self.cluster == "debug" else self.slots
        return SlurmPool(slots, folder, submitter, self)


class SlurmPool(Pool):
    """Slurm jobs, looked at until they have ended.

    Args:
        slots: how many are queued or running at a time.
        folder: holds `logs/slurm`, with what submitit writes, and `logs/slurm.log`, with the tracebacks of faults.
        submitter: submitit's executor.
        executor: the settings.
    """

    def __init__(self, slots: int, folder: Path, submitter: Any, executor: Slurm) -> None:
        super().__init__(slots, folder)
        self.submitter, self.executor = submitter, executor
        self._jobs: list[tuple[Job, Any, int]] = []

    def start(self, job: Job) -> None:
        self._submit(job, 0)

    def _submit(self, job: Job, attempts: int) -> None:
        log = self.folder.absolute() / "logs" / "slurm.log"
        try:
            submitted = self.submitter.submit(_perform, job.plain(), str(log), os.getcwd(), self.executor.cpus)
        except (OSError, RuntimeError) as error:
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise RunError(f"The job '{job.name}' could not be submitted to Slurm: {last[0]}") from error
        self._jobs.append((job, submitted, attempts))

    def poll(self) -> list[Outcome]:
        found = []
        for entry in [entry for entry in self._jobs if entry[1].done()]:
            self._jobs.remove(entry)
            job, submitted, attempts = entry
            outcome = self._outcome(job, submitted)
            again = outcome is None or outcome.status == "interrupted"
            # In this process it was a signal to the study.
            self.stopping = self.stopping or (again and self.executor.cluster == "debug")
            if again and self.stopping:
                found.append(outcome or interrupted(job))
            elif again and attempts < self.executor.retries:
                self._submit(job, attempts + 1)
            else:
                found.append(outcome or self._vanished(job, submitted, attempts))
        if not found:
            time.sleep(_TICK)
        return found

    def _outcome(self, job: Job, submitted: Any) -> Outcome | None:
        """The outcome, or None where the allocation ended without one."""
        from submitit.core.utils import UncompletedJobError

        try:
            return Outcome(job, **submitted.result())
        except UncompletedJobError:
            return None

    def _vanished(self, job: Job, submitted: Any, attempts: int) -> Outcome:
        words = (
            f"The Slurm job {submitted.job_id} ended without a result (state {submitted.state}, {attempts + 1} "
            f"submitted in all); its log is {submitted.paths.stderr}."
        )
        return Outcome(job, None, words, "failed")

    def interrupt(self) -> None:
        for _, submitted, _ in self._jobs:
            submitted.cancel(check=False)

    def kill(self) -> None:
        self.interrupt()
        deadline = time.monotonic() + _KILL_SECONDS
        while self.executor.cluster == "local" and time.monotonic() < deadline:
            if all(submitted.done() for _, submitted, _ in self._jobs):
                break
            time.sleep(0.05)
        self._jobs.clear()


def _perform(job: dict[str, Any], log: str, folder: str, cpus: int) -> dict[str, Any]:
    """One job in its allocation."""
    os.environ.update(thread_variables(cpus))
    os.chdir(folder)
    with sigterm_interrupts(), _sigusr2_is_sigterm():
        return perform(Job(**job), Path(log)).plain()


@contextmanager
def _sigusr2_is_sigterm() -> Iterator[None]:
    """SIGUSR2 is what submitit has Slurm send when the time is nearly over, or the allocation is wanted for others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR2, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
