"""What `foretrain study` does, as calls."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretrain.console import Terminal
from foretrain.errors import RequestError
from foretrain.files import write_json
from foretrain.lock import RunLock
from foretrain.recipe import read_recipe
from foretrain.studies.conducting import conduct
from foretrain.studies.forecast import RUNS, ForecastStudy, conduct_forecast, load_forecast_study
from foretrain.studies.noise import FILE, noise_data, noise_study
from foretrain.studies.study import Study, load_study
from foretrain.studies.train_once import TrainOnceStudy, conduct_train_once, load_train_once

OWN = (
    "trials",
    "tuning",
    "logs",
    "check",
    "full",
    RUNS,
    "train_once.json",
    "study.yaml",
    "study.json",
    "environment.json",
    "report.html",
    FILE,
)
"""What a study writes into its directory."""
KNOWN = ("study.yaml", "train_once.json", "check/study.yaml", "full/study.yaml", f"{RUNS}/study.yaml")
"""Files of which a directory of a study has one, from before its first trial on."""
NOISE_SEEDS = 10
"""Seeds of a noise study, unless it is told how many."""


def study(
    file: Study | TrainOnceStudy | ForecastStudy | Path | str,
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    restart: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a study to its verdicts, or on from where an earlier call of the same was stopped.

    More seeds, arms or metrics than before only cost what is new: trials that have ended are kept.

    Args:
        file: a study, or the path of one.
        out: its directory; `studies/NAME` if None.
        overrides: `a.b=c` each, of the study (`base.optimizer.lr=1e-3`).
        seeds: how many, in place of the study's own.
        restart: forget what the directory holds of an earlier study.
        quiet: show no progress.

    Returns:
        What `study.json` holds (`train_once.json` for a file with `train_once:`).

    Raises:
        RequestError: something about the request is wrong; nothing was trained.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    terminal = Terminal(quiet=quiet)
    if seeds is not None and seeds < 1:
        raise RequestError(f"seeds: a study has at least one (given: {seeds}).")
    told = [*overrides, *([] if seeds is None else [f"seeds={seeds}"])]
    found = _read(file, told) if isinstance(file, Path | str) else file
    if found is file and seeds is not None:
        found = found.model_copy(update={"seeds": list(range(seeds)) if isinstance(found, Study) else seeds})
    folder = _folder(found.name, out, restart)
    if isinstance(found, TrainOnceStudy):
        return conduct_train_once(found, folder, terminal=terminal)
    if isinstance(found, ForecastStudy):
        data = conduct_forecast(found, folder, terminal=terminal)
    else:
        data = conduct(found, folder, terminal=terminal)
    terminal.say(f"done: {folder / 'study.json'}, report {folder / 'report.html'}")
    return data


def _read(file: Path | str, told: Sequence[str]) -> Study | TrainOnceStudy | ForecastStudy:
    """The study of a file: of runs, of interventions in one run (`train_once:`) or of forecasters (`forecast:`)."""
    keys = read_recipe(Path(file))
    if "forecast" in keys:
        return load_forecast_study(file, told)
    return load_train_once(file, told) if "train_once" in keys else load_study(file, told)


def noise(
    base: Path | str,
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    restart: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run one recipe (or the baseline of a study) over seeds, and keep how much they differ.

    Returns:
        What `noise.json` holds: per metric, the standard deviation over seeds with its interval, and how often two
        groups of those seeds are called better or worse than one another.

    Raises:
        RequestError: something about the request is wrong; nothing was trained.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    count = NOISE_SEEDS if seeds is None else seeds
    if count < 2:
        raise RequestError("--noise needs at least two seeds: the noise is how much they differ.")
    found = noise_study(Path(base), range(count), overrides)
    folder = _folder(found.name, out, restart)
    terminal = Terminal(quiet=quiet)
    data = noise_data(found, conduct(found, folder, terminal=terminal))
    write_json(folder / FILE, data)
    terminal.say(f"done: {folder / FILE}; a study cites it by `noise: {folder}`")
    return data


def _folder(name: str, out: Path | str | None, restart: bool) -> Path:
    folder = Path(out) if out is not None else Path("studies") / name
    if (folder / "recipe.yaml").is_file():
        raise RequestError(f"{folder} is the directory of a run; give the study one of its own by --out.")
    # A folder that holds no study may hold other things by these names.
    if restart and any((folder / known).is_file() for known in KNOWN):
        with RunLock(folder):
            for own in OWN:
                path = folder / own
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return folder
