"""Tracker: a service or file format that the metrics of a run are also sent to."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from foretrain.errors import RequestError
from foretrain.files import read_json, write_json
from foretrain.parts import Part
from foretrain.run_directory import RunDirectory


class Tracker(Part):
    """Receives what goes to `metrics.jsonl` and `timing.jsonl`. Trackers never see data or weights.

    A resumed run logs some steps again, with the same figures: a tracker keeps one value per step and name.
    """

    axis: ClassVar[str] = "tracker"

    @abstractmethod
    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        """Open the tracker for a run directory; `recipe` is the resolved recipe as plain data.

        A run directory that was tracked before goes on in the same place.

        Raises:
            RequestError: its package is not installed (the message names the extra).
        """

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One step's figures; steps never fall between `start` and `finish`."""

    def finish(self) -> None:
        """Flush and close."""


class Trackers:
    """All trackers of a run. None of them can stop it: one that fails while training is said once and left out.

    Args:
        trackers: those the recipe names.
        warn: told of a tracker that failed.
    """

    def __init__(self, trackers: Sequence[Tracker], warn: Callable[[str], None]) -> None:
        self.trackers = [tracker.model_copy(deep=True) for tracker in trackers]
        self.warn = warn

    def start(self, run: Path, name: str, recipe: Mapping[str, Any]) -> None:
        """Open all of them.

        Raises:
            RequestError: one cannot be opened; better known before the run than after it.
        """
        for tracker in self.trackers:
            try:
                tracker.start(run, name, recipe)
            except RequestError:
                raise
            except Exception as error:
                raise RequestError(f"track: {tracker.kind} cannot be started: {_first_line(error)}") from error

    def log(self, step: int, line: Mapping[str, Any]) -> None:
        """The figures of one line of `metrics.jsonl` or `timing.jsonl`; what is no number stays here."""
        figures = {name: float(value) for name, value in line.items() if name != "step" and _is_figure(value)}
        if figures:
            self._each(lambda tracker: tracker.log(step, figures))

    def finish(self) -> None:
        """Flush and close all of them."""
        self._each(lambda tracker: tracker.finish())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:
                self.trackers.remove(tracker)
                self.warn(f"track: {tracker.kind} failed and gets no more figures: {_first_line(error)}")


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def require(module: str, kind: str) -> Any:
    """Import a tracker's package.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RequestError(
            f"track: {kind} needs the package '{error.name or package}'; install it with "
            f"pip install 'foretrain[track]', or take {kind} out of `track`."
        ) from error


def remembered(run: Path, kind: str) -> str | None:
    """The name under which a tracker knows this run directory, from `remember`; None the first time."""
    path = RunDirectory(run).trackers_path
    found = read_json(path).get(kind) if path.is_file() else None
    return str(found) if found is not None else None


def remember(run: Path, kind: str, name: str) -> None:
    """Keep the name under which a tracker knows this run directory, for `remembered` after a restart."""
    path = RunDirectory(run).trackers_path
    known = read_json(path) if path.is_file() else {}
    write_json(path, {**known, kind: name})
