"""Running a claim: its study at a scale, and what is kept of it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foretrain.claims.claim import SCALES, ScaleName, load_claim
from foretrain.claims.finding import HERE, RESULT, claims_folder, entry, find, own
from foretrain.claims.register import MARK, page
from foretrain.claims.results import environment_of, result_data
from foretrain.claims.train_once import as_study
from foretrain.claims.words import outcome_words
from foretrain.console import Terminal
from foretrain.errors import RequestError, unknown_name
from foretrain.files import write_atomic, write_json
from foretrain.studies.commands import study as run_study
from foretrain.studies.executors.base import Executor
from foretrain.studies.executors.inline import Inline
from foretrain.studies.train_once import TrainOnceStudy


def run_claim(
    slug: str,
    *,
    scale: str = "small",
    seeds: int | None = None,
    out: Path | str | None = None,
    folder: Path | str | None = None,
    executor: Executor | None = None,
    restart: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run the study of a claim, judge the claim, and keep the result; called again, it goes on where it stood.

    A result at `small` or `full` is kept as `result.json`: beside the claim where the claims are one's own, or else
    (for those that foretrain comes with) in the study's directory. Where `docs/` stands beside `recipes/claims`, its
    page of claims is written again. `smoke` keeps nothing.

    Args:
        slug: name of the claim.
        scale: `smoke` (seconds), `small` (minutes) or `full`.
        seeds: how many, in place of the study's own.
        out: the study's directory; if None `studies/claims-SLUG`, `studies/claims-SLUG.full`, or for `smoke` none that
            lasts.
        folder: where the claims are; `claims_folder()` if None.
        executor: where the trials run, in place of the study's own; `smoke` runs in this process.
        restart: forget an earlier study in that directory.
        quiet: show no progress.

    Returns:
        What `result.json` holds (or would hold).

    Raises:
        RequestError: no such claim or scale, or faults in it; nothing was trained.
        RunError: the study could not go on.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    within = claims_folder() if folder is None else Path(folder)
    home, size = find(slug, within), _scale(scale)
    claim = load_claim(home)
    study = claim.at(size, home, seeds)
    if executor is None and size == "smoke":
        executor = Inline()
    if executor is not None:
        study = study.model_copy(update={"executor": executor})
    terminal = Terminal(quiet=quiet)
    lasting = out is not None or size != "smoke"
    with ExitStack() as stack:
        if out is not None:
            directory = Path(out)
        elif lasting:
            directory = Path("studies") / (f"claims-{slug}" if size == "small" else f"claims-{slug}.{size}")
        else:
            directory = Path(stack.enter_context(TemporaryDirectory()))
        # Where nothing lasts there is no place to tell of.
        data = run_study(study, out=directory, restart=restart, quiet=quiet or not lasting)
        if isinstance(study, TrainOnceStudy):
            data = as_study(directory)
        today = datetime.now(timezone.utc).date().isoformat()
        result = result_data(claim, home, size, data, environment_of(directory), today)
    if size == "smoke":
        terminal.say(f"{slug}: the smoke run went through; it decides nothing and nothing is kept of it.")
        return result
    for row in result["expectations"]:
        terminal.say(outcome_words(row))
    kept = (home if own(within) else directory) / RESULT
    write_json(kept, result)
    terminal.say(f"{slug}: {result['verdict']}; result {kept}")
    if own(within) and (written := write_page(within)) is not None:
        terminal.say(f"page {written}")
    return result


def show_claim(slug: str, folder: Path | str | None = None) -> dict[str, Any]:
    """A claim with its last result, as plain data: `slug, path, verdict, stale, claim, result`.

    Raises:
        RequestError: there is no such claim, or it has faults.
    """
    home = find(slug, folder)
    load_claim(home)
    found = entry(home)
    return {
        "slug": slug,
        "path": str(home),
        "verdict": found.verdict,
        "stale": found.stale,
        "claim": found.claim.model_dump(mode="json"),
        "result": found.result,
    }


def write_page(folder: Path) -> Path | None:
    """Write `docs/claims.md` of the repository whose `recipes/claims` this is; None where it has no such page.

    A page of that name which was written by hand is left alone.
    """
    root = folder.resolve()
    if root.parts[-2:] != HERE.parts:
        return None
    path = root.parent.parent / "docs" / "claims.md"
    if not path.parent.is_dir() or (path.is_file() and MARK not in path.read_text(encoding="utf-8")):
        return None
    write_atomic(path, page(folder))
    return path


def _scale(name: str) -> ScaleName:
    for scale in SCALES:
        if scale == name:
            return scale
    raise RequestError(f"--scale {name}: {unknown_name('scale', name, SCALES)}")
