"""Tasks as an array of jobs on a Slurm cluster."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.curation.executors.base import CorpusExecutor, logged, need_all
from foretrain.curation.needed import require
from foretrain.curation.stage import Pass
from foretrain.errors import RequestError
from foretrain.parts import Facts

POLL_SECONDS = 15.0


class Slurm(CorpusExecutor):
    """datatrove's Slurm executor: each pass is an array of jobs, and the build waits for its end.

    The build's folder has to be on a file system that all nodes see. The command itself does no work and may run on a
    login node; when it is stopped, jobs that were submitted go on, and the same command finds what they did.
    """

    kind: Literal["slurm"] = "slurm"
    facts: ClassVar[Facts] = Facts(answers="where is a corpus built? in jobs of a Slurm cluster")

    partition: str
    """Partition that the jobs go to."""
    time: str = "04:00:00"
    """Time limit of a job."""
    workers: int = Field(-1, ge=-1)
    """How many jobs run at a time; -1 for no limit."""
    cpus: int = Field(1, ge=1)
    """Processors of a job."""
    memory: int = Field(4, ge=1)
    """Gigabytes of memory for each of them."""
    setup: str = ""
    """A shell command that a job begins with, such as `source venv/bin/activate`."""
    arguments: dict[str, str] = {}
    """Further arguments of `sbatch`, such as `{account: mine}`."""

    def check(self) -> None:
        """See that datatrove and `sbatch` are there."""
        require("datatrove.executor.slurm")
        if shutil.which("sbatch") is None:
            raise RequestError(
                "executor: slurm submits jobs by the command `sbatch`, which is not on this machine. Run the build on "
                "a login node of the cluster, or take {kind: local}."
            )

    def run(self, work: Pass, folder: Path) -> None:
        kind = require("datatrove.executor.slurm").SlurmPipelineExecutor
        executor = kind(
            list(work.pipeline),
            tasks=work.tasks,
            time=self.time,
            partition=self.partition,
            workers=self.workers,
            cpus_per_task=self.cpus,
            mem_per_cpu_gb=self.memory,
            job_name=f"foretrain-{work.name}",
            env_command=self.setup or None,
            sbatch_args=dict(self.arguments),
            logging_dir=str(folder),
            mail_type="NONE",
        )
        with logged(folder):
            executor.run()
        while executor.get_incomplete_ranks(skip_completed=True) and _queued(executor):
            time.sleep(POLL_SECONDS)
        need_all(executor, folder)


def _queued(executor: Any) -> bool:
    """Whether Slurm still has jobs of an executor, waiting or running."""
    if executor.job_id in (None, -1):  # there was nothing to submit
        return False
    asked = subprocess.run(["squeue", "-h", "-j", str(executor.job_id)], capture_output=True, text=True, check=False)
    return asked.returncode == 0 and bool(asked.stdout.strip())
