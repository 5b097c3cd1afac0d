"""Another run that a part reads its settings from: one that has ended."""

from __future__ import annotations

from pathlib import Path

from foretrain.errors import RequestError
from foretrain.run_directory import RunDirectory

_ENDED = ("done", "paused")


def ended_run(path: Path | str, kind: str, wanted: str) -> RunDirectory:
    """The run that has ended in a directory.

    Args:
        path: of the run directory, or of the model folder inside (what a study's `product:NAME` stands for).
        kind: of the steering part that asks.
        wanted: what of it is known at its end, for the message.

    Raises:
        RequestError: there is no such run, or it has not ended.
    """
    above = RunDirectory(Path(path).parent)
    run = above if above.model_path == Path(path) and above.recipe_path.is_file() else RunDirectory.open(path)
    if (status := run.status()) not in _ENDED:
        raise RequestError(
            f"steering '{kind}': run: {run.path} is {status}, and {wanted} is known at its end; let it end, or name a "
            "run that has."
        )
    return run
