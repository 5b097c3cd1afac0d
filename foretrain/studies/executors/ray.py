"""Jobs as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.signals import sigterm_interrupts
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool, require
from foretrain.studies.jobs import interrupted, perform
from foretrain.studies.machine import thread_variables

_TICK = 0.2


class Ray(Executor):
    """Tasks of a Ray cluster, or of a Ray that is started on this machine for the study.

    Its machines see the study's folder and the data under the same paths, and have foretrain installed.
    """

    kind: Literal["ray"] = "ray"
    facts: ClassVar[Facts] = Facts(answers="where do trials run? on a Ray cluster")

    address: str | None = None
    """Of the cluster (`auto`, `HOST:PORT`, `ray://HOST:PORT`); unset: what `RAY_ADDRESS` says, else this machine."""
    cpus: int = Field(1, ge=1)
    """Cores, and threads, of each trial."""
    gpus: float = Field(0, ge=0)
    """GPUs of each trial; a fraction lets several share one."""
    slots: int | None = Field(None, ge=1)
    """How many trials run side by side; unset: as many as the cluster carries."""
    retries: int = Field(1, ge=0)
    """How often a job is begun again whose process or machine died."""

    def open(self, folder: Path) -> Pool:
        ray = require("ray", self.kind)
        started = not ray.is_initialized()
        if started:
            self._connect(ray)
        found = ray.cluster_resources()
        cores, gpus = found.get("CPU", 0), found.get("GPU", 0)
        most = int(min(cores // self.cpus, gpus // self.gpus if self.gpus else math.inf))
        if most < 1:
            if started:
                ray.shutdown()
            raise RequestError(
                f"executor: ray: the cluster has {cores:g} cores and {gpus:g} GPUs, too few for one trial "
                f"(cpus: {self.cpus}, gpus: {self.gpus:g})."
            )
        return RayPool(min(most, self.slots or most), folder, ray, self, started)

    def _connect(self, ray: Any) -> None:
        here = self.address is None and "RAY_ADDRESS" not in os.environ
        options = {"include_dashboard": False} if here else {}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(self.address, log_to_driver=False, logging_level=logging.WARNING, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            place = "on this machine" if here else f"at {self.address or os.environ['RAY_ADDRESS']}"
            raise RequestError(f"executor: ray {place} cannot be used: {error}") from error
        finally:
            # Ray has a handler of its own, which ends this process at once.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)


class RayPool(Pool):
    """Tasks on Ray, which keeps their processes, and so what they imported, from one to the next.

    Args:
        slots: how many tasks at a time.
        folder: holds `logs/ray.log`, with the tracebacks of faults.
        ray: the package.
        executor: the settings.
        started: whether Ray is to be shut down in the end.
    """

    def __init__(self, slots: int, folder: Path, ray: Any, executor: Ray, started: bool) -> None:
        super().__init__(slots, folder)
        self.ray, self.started = ray, started
        self._task = ray.remote(_perform).options(
            num_cpus=executor.cpus,
            num_gpus=executor.gpus,
            max_retries=executor.retries,
        )
        self._cpus = executor.cpus
        self._jobs: dict[Any, Job] = {}

    def start(self, job: Job) -> None:
        log = self.folder.absolute() / "logs" / "ray.log"
        self._jobs[self._task.remote(job.plain(), str(log), os.getcwd(), self._cpus)] = job

    def poll(self) -> list[Outcome]:
        ended, _ = self.ray.wait(list(self._jobs), num_returns=1, timeout=_TICK)
        return [self._outcome(task, self._jobs.pop(task)) for task in ended]

    def _outcome(self, task: Any, job: Job) -> Outcome:
        try:
            return Outcome(job, **self.ray.get(task))
        except self.ray.exceptions.TaskCancelledError:
            return interrupted(job)
        except self.ray.exceptions.RayError as error:
            if self.stopping:
                return interrupted(job)
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return Outcome(job, None, f"Ray lost the task ({type(error).__name__}): {first}", "failed")

    def interrupt(self) -> None:
        for task in self._jobs:
            self.ray.cancel(task, force=False)

    def kill(self) -> None:
        for task in self._jobs:
            self.ray.cancel(task, force=True)
        self._jobs.clear()

    def close(self) -> None:
        super().close()
        if self.started:
            self.ray.shutdown()
            self.started = False


def _perform(job: dict[str, Any], log: str, folder: str, cpus: int) -> dict[str, Any]:
    """One job in a process of Ray's."""
    os.environ.update(thread_variables(cpus))
    os.chdir(folder)  # relative paths are those of the study
    with sigterm_interrupts():
        return perform(Job(**job), Path(log)).plain()
