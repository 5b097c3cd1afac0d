"""CorpusExecutor: where the passes of a build run. They are those of datatrove, each behind the same few fields."""

from __future__ import annotations

import contextlib
import os
import sys
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from foretrain.curation.needed import require
from foretrain.curation.stage import Pass
from foretrain.errors import RunError
from foretrain.parts import Part


class CorpusExecutor(Part):
    """Runs every task of a pass. A task that is recorded as done in the folder of the pass is not run again."""

    axis: ClassVar[str] = "corpus executor"
    modality: ClassVar[str] = "text"

    @abstractmethod
    def check(self) -> None:
        """Find out whether it can run here.

        Raises:
            RequestError: a package or a command is missing.
        """

    @abstractmethod
    def run(self, work: Pass, folder: Path) -> None:
        """Run all tasks of a pass that are not done, and return when all are; records are kept in `folder`.

        Raises:
            ForetrainError: what a task raised, or a task that could not be run.
        """


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """While open, whatever this process and those it starts say on stderr goes to `folder/stderr.log`.

    datatrove reports each task there, in many lines; they are kept with its logs, and the terminal is ours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    before = os.dup(2)
    try:
        with open(folder / "stderr.log", "a", encoding="utf-8") as file, contextlib.redirect_stderr(file):
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                # Its logger would go on writing to a file that is closed.
                require("loguru").logger.remove()
                file.flush()
                os.dup2(before, 2)
    finally:
        os.close(before)


def need_all(executor: Any, folder: Path) -> None:
    """See that every task of a datatrove executor is done.

    Raises:
        RunError: some are not.
    """
    missing = executor.get_incomplete_ranks(skip_completed=True)
    if missing:
        shown = ", ".join(map(str, missing[:8])) + (" ..." if len(missing) > 8 else "")
        raise RunError(
            f"{len(missing)} of {executor.world_size} tasks of {folder.name} did not end (tasks {shown}); their logs "
            f"are in {folder}. The same command runs those alone."
        )
