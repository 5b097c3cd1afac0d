"""Tasks on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.curation.executors.base import CorpusExecutor, logged, need_all
from foretrain.curation.needed import require
from foretrain.curation.stage import Pass
from foretrain.parts import Facts


class Ray(CorpusExecutor):
    """datatrove's Ray executor, on the cluster that the environment variable RAY_ADDRESS names, or on this machine.

    The build's folder has to be on a file system that all nodes see.
    """

    kind: Literal["ray"] = "ray"
    facts: ClassVar[Facts] = Facts(answers="where is a corpus built? on a Ray cluster")

    workers: int = Field(-1, ge=-1)
    """How many tasks run at a time; -1 for no limit."""
    cpus: int = Field(1, ge=1)
    """Processors of a task."""
    memory: int = Field(2, ge=1)
    """Gigabytes of memory for each of them."""

    def check(self) -> None:
        """See that Ray is installed."""
        require("ray", "ray")
        require("datatrove.executor.ray")

    def run(self, work: Pass, folder: Path) -> None:
        kind = require("datatrove.executor.ray").RayPipelineExecutor
        executor = kind(
            list(work.pipeline),
            tasks=work.tasks,
            workers=self.workers,
            cpus_per_task=self.cpus,
            mem_per_cpu_gb=self.memory,
            logging_dir=str(folder),
        )
        with logged(folder):
            executor.run()
        need_all(executor, folder)
