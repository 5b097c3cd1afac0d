"""What `foretrain corpus build` does, as one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretrain.console import Terminal
from foretrain.curation.build_file import CorpusBuild, load_build
from foretrain.curation.building import build


def build_corpus(
    file: CorpusBuild | Path | str,
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    restart: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Build a corpus from a YAML file, or go on with a build that was stopped.

    Args:
        file: the build's file, or the build itself.
        out: its folder; `corpora/NAME` if left out.
        overrides: `a.b=c` changes of the file.
        restart: forget an earlier build in that folder.
        quiet: say nothing while it works.

    Returns:
        `path`, and what `manifest.json` says.

    Raises:
        ForetrainError: the build is wrong, or could not be done.
    """
    made = file if isinstance(file, CorpusBuild) else load_build(file, overrides)
    folder = Path(out) if out is not None else Path("corpora") / made.name
    manifest = build(made, folder, Terminal(quiet=quiet), restart)
    return {"path": str(folder), "manifest": manifest}
