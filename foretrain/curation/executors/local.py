"""Tasks in processes of this machine."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.curation.executors.base import CorpusExecutor, logged, need_all
from foretrain.curation.needed import require
from foretrain.curation.stage import Pass
from foretrain.parts import Facts


class Local(CorpusExecutor):
    """datatrove's local executor: one task after another in this process, or several at a time in processes of its own.

    What comes out does not depend on `workers`.
    """

    kind: Literal["local"] = "local"
    facts: ClassVar[Facts] = Facts(answers="where is a corpus built? in processes of this machine")

    workers: int = Field(1, ge=1)
    """How many tasks run at a time; there are as many as `shards`."""

    def check(self) -> None:
        """See that datatrove is installed."""
        require("datatrove.executor.local")

    def run(self, work: Pass, folder: Path) -> None:
        kind = require("datatrove.executor.local").LocalPipelineExecutor
        workers = min(self.workers, work.tasks)
        executor = kind(list(work.pipeline), tasks=work.tasks, workers=workers, logging_dir=str(folder))
        with logged(folder):
            if workers > 1:
                executor.run()
            else:  # its own way starts a process for each pass, which may take longer than a small task
                for rank in executor.get_incomplete_ranks():
                    executor.pipeline = deepcopy(list(work.pipeline))
                    executor._run_for_rank(rank)
        need_all(executor, folder)
