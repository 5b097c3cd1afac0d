"""The run directory: the one place that knows the names of the files inside it, and how to read them.

The trainer asks it where to write; listings, comparisons and reports ask it what is there. Reading never fails on a
run that is still going on or was killed: a half-written last line is left out, a missing file is empty.
"""

from __future__ import annotations

import fcntl
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foretrain.errors import CorruptFile, RequestError, nearest
from foretrain.files import read_json
from foretrain.journal import read_journal
from foretrain.pictures import Drawn
from foretrain.plain_yaml import parse_yaml

if TYPE_CHECKING:
    from foretrain.recipe import Recipe

Status = Literal["planned", "running", "paused", "interrupted", "failed", "done"]
_CHECKPOINT = re.compile(r"step-(\d{8,})$")


class Series(NamedTuple):
    """One figure over the run: int64 steps, rising, and float64 values (not-a-number where a step gave none)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def last(self) -> float | None:
        """The last finite value, or None."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite[-1]) if finite.size else None


class RunDirectory:
    """A run's directory.

    Files: `recipe.yaml` (resolved), `plan.json`, `environment.json`, `metrics.jsonl` (deterministic figures),
    `timing.jsonl` (`seconds` counts from the start of training and goes on after a resume), `checkpoints/step-N/`,
    `tokenizer/`, `config.json` (of the model), `model/`, `samples.json`, `pictures.json` (what steering parts show of
    themselves), `result.json` (written at the end, removed when training starts), `forecasts.jsonl` (what was predicted
    of it), `merge.json` (of a merge), `trackers.json`, `report.html`, and `.lock`, which a training process holds
    (`lock.RunLock`).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe_path = self.path / "recipe.yaml"
        self.plan_path = self.path / "plan.json"
        self.environment_path = self.path / "environment.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.timing_path = self.path / "timing.jsonl"
        self.samples_path = self.path / "samples.json"
        self.pictures_path = self.path / "pictures.json"
        self.result_path = self.path / "result.json"
        self.report_path = self.path / "report.html"
        self.forecasts_path = self.path / "forecasts.jsonl"
        self.lock_path = self.path / ".lock"
        self.trackers_path = self.path / "trackers.json"
        self.checkpoints_path = self.path / "checkpoints"
        self.model_path = self.path / "model"
        self.tokenizer_path = self.path / "tokenizer"
        self.config_path = self.path / "config.json"
        self.merge_path = self.path / "merge.json"
        self._lines: dict[Path, tuple[tuple[int, int], list[dict[str, Any]]]] = {}

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """The run directory at `path`.

        Raises:
            RequestError: there is no such folder, or it holds no run; the message names the nearest run beside it.
        """
        run = cls(path)
        if run.recipe_path.is_file():
            return run
        folder = run.path.resolve()
        beside = {other.path.name for other in _runs_in(folder.parent)}
        if folder.is_dir():
            inside = sorted(other.path.name for other in _runs_in(folder))
            if inside:
                hint = f" It holds runs: {', '.join(inside[:5])}{' ...' if len(inside) > 5 else ''}; name one of them."
            else:
                hint = _nearest_run(folder.name, beside - {folder.name}, run.path.parent)
            raise RequestError(f"{path} is not a run: it holds no recipe.yaml.{hint}")
        raise RequestError(f"There is no run {path}.{_nearest_run(folder.name, beside, run.path.parent)}")

    @property
    def name(self) -> str:
        """Name of the run: that of its recipe, or else of its folder."""
        try:
            return str(self.recipe().get("name") or self.path.resolve().name)
        except CorruptFile:
            return self.path.resolve().name

    def clear(self) -> None:
        """Forget a run: everything that is its own is deleted, what else lies in the folder stays."""
        for folder in (self.checkpoints_path, self.model_path, self.tokenizer_path):
            shutil.rmtree(folder, ignore_errors=True)
        written = (self.plan_path, self.environment_path, self.metrics_path, self.timing_path, self.samples_path)
        kept = (self.pictures_path, self.result_path, self.report_path, self.trackers_path, self.config_path)
        # The recipe goes last: while it is there, the folder is known as a run.
        for file in (*written, *kept, self.forecasts_path, self.merge_path, self.recipe_path):
            file.unlink(missing_ok=True)

    def checkpoint_path(self, step: int) -> Path:
        """Folder of the checkpoint taken once `step` steps were done."""
        return self.checkpoints_path / f"step-{step:08d}"

    def checkpoints(self) -> list[Path]:
        """Folders of the complete checkpoints, oldest first (complete ones have their final name)."""
        if not self.checkpoints_path.is_dir():
            return []
        found = [child for child in self.checkpoints_path.iterdir() if _CHECKPOINT.fullmatch(child.name)]
        return sorted((child for child in found if child.is_dir()), key=lambda child: int(child.name[5:]))

    def recipe(self) -> dict[str, Any]:
        """The resolved recipe as plain data; empty before it is written."""
        if not self.recipe_path.is_file():
            return {}
        try:
            data = parse_yaml(self.recipe_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CorruptFile(f"{self.recipe_path} is not valid YAML: {error}") from error
        return data if isinstance(data, dict) else {}

    def load_recipe(self) -> Recipe:
        """The resolved recipe; its relative paths start where those of the original did."""
        from foretrain.recipe import make_recipe

        folder = Path(self.plan().get("folder") or self.path)
        return make_recipe(self.recipe(), folder=folder, source=str(self.recipe_path))

    def plan(self) -> dict[str, Any]:
        """What the planner fixed before the first step; empty before it is written."""
        return self._json(self.plan_path) or {}

    def environment(self) -> dict[str, Any]:
        """Versions, hardware and threads."""
        return self._json(self.environment_path) or {}

    def result(self) -> dict[str, Any] | None:
        """Final figures, or None for a run that has not ended."""
        return self._json(self.result_path)

    def samples(self) -> list[dict[str, Any]]:
        """Generated text: `prompt` and `text` each."""
        return self._json(self.samples_path) or []

    def pictures(self) -> list[Drawn]:
        """What steering parts show of themselves; empty before the end of a run, and of one that has no such part.

        Raises:
            CorruptFile: the file is not what a run writes.
        """
        try:
            return [Drawn.from_plain(each) for each in self._json(self.pictures_path) or []]
        except (LookupError, TypeError, ValueError) as error:
            message = f"{self.pictures_path} does not hold pictures as a run writes them ({error!r}); it was changed."
            raise CorruptFile(f"{message} Delete it to make the report without it.") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        return self._jsonl(self.metrics_path)

    def timing(self) -> list[dict[str, Any]]:
        """The lines of `timing.jsonl`."""
        return self._jsonl(self.timing_path)

    def names(self) -> list[str]:
        """Names of all figures in `metrics.jsonl` and `timing.jsonl`, in order of appearance."""
        rows = [*self.metrics(), *self.timing()]
        return list(dict.fromkeys(name for row in rows for name in row if name != "step"))

    def series(self, name: str) -> Series:
        """One figure over the run, from whichever file has it; empty if neither has."""
        found = series(self.metrics(), name)
        return found if found.steps.size else series(self.timing(), name)

    def final(self) -> dict[str, float]:
        """The last finite value of every figure, by the names of `metrics.jsonl`.

        Where the run has ended, what its result says of validation and tasks outranks what was seen on the way.
        """
        figures: dict[str, float] = {}
        for row in self.metrics():
            figures |= {name: value for name, value in row.items() if _is_number(value)}
        result = self.result() or {}
        for name, value in (result.get("validation") or {}).items():
            if _is_number(value):
                figures[f"validation/{name}"] = value
        for task, metrics in (result.get("tasks") or {}).items():
            for metric, measured in metrics.items():
                ends = {"": "value", "/low": "low", "/high": "high"}
                told = {f"task/{task}/{metric}{end}": measured.get(key) for end, key in ends.items()}
                figures |= {name: value for name, value in told.items() if _is_number(value)}
        told = {f"merge/{name}": value for name, value in (result.get("merge") or {}).items()}
        return figures | {name: value for name, value in told.items() if _is_number(value)}

    def status(self) -> Status:
        """How far the run is: its result is only written at the end; a process that trains holds its lock.

        A run that stands where it was asked to stop for now (`until`) is paused.
        """
        result = self.result()
        if result is not None:
            status: Status = result.get("status", "done")
            return status
        if self._locked():
            return "running"
        rows, checkpoints = self.metrics(), self.checkpoints()
        if rows and checkpoints and rows[-1]["step"] == int(checkpoints[-1].name[5:]) in self.plan().get("pauses", []):
            return "paused"
        return "interrupted" if rows or checkpoints else "planned"

    def cost(self) -> dict[str, float | None]:
        """Steps, tokens, FLOPs, seconds and two peaks of memory in bytes so far (None where nothing tells).

        `peak_memory` is that of the process, whatever it did before; `tensor_memory` that of this run's tensors.
        """
        final = self.final()
        timing = self.timing()
        told = (self.result() or {}).get("cost") or {}
        return {
            "steps": told.get("steps", final.get("step")),
            "tokens": told.get("tokens", final.get("tokens")),
            "flops": told.get("flops", final.get("flops")),
            "seconds": told.get("seconds", series(timing, "seconds").last),
            "peak_memory": told.get("peak_memory", max(series(timing, "memory").values, default=None)),
            "tensor_memory": told.get("tensor_memory", max(series(timing, "tensor_memory").values, default=None)),
        }

    def _locked(self) -> bool:
        # The file is empty while no process trains; after a kill it still names one, but the kernel holds nothing.
        try:
            with open(self.lock_path) as handle:
                if not handle.read(1):
                    return False
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _json(self, path: Path) -> Any:
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except ValueError as error:
            message = f"{path} is not valid JSON ({error}); it was changed by hand or its disk is faulty."
            raise CorruptFile(message) from error

    def _jsonl(self, path: Path) -> list[dict[str, Any]]:
        try:
            found = path.stat()
        except FileNotFoundError:
            return []
        stamp = (found.st_size, found.st_mtime_ns)
        known = self._lines.get(path)
        if known is None or known[0] != stamp:
            known = self._lines[path] = (stamp, read_journal(path))
        return known[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def series(rows: Iterable[Mapping[str, Any]], name: str) -> Series:
    """One figure of lines such as those of `metrics.jsonl`; the last line of a step counts, null is not-a-number."""
    points: dict[int, float] = {}
    for row in rows:
        if name in row and not isinstance(row[name], str | list | dict):
            value = row[name]
            points[row["step"]] = math.nan if value is None else float(value)
    steps = sorted(points)
    return Series(np.array(steps, dtype=np.int64), np.array([points[step] for step in steps], dtype=np.float64))


def by_domain(figures: Mapping[str, float], unit: str = "loss") -> dict[str, float]:
    """The validation figures of single domains, `validation/DOMAIN/UNIT`, by domain."""
    split = [(name, name.split("/")) for name in figures]
    return {
        parts[1]: figures[name]
        for name, parts in split
        if len(parts) == 3 and parts[0] == "validation" and parts[2] == unit
    }


def _runs_in(folder: Path) -> list[RunDirectory]:
    if not folder.is_dir():
        return []
    return [RunDirectory(child) for child in sorted(folder.iterdir()) if (child / "recipe.yaml").is_file()]


def _nearest_run(name: str, runs: set[str], folder: Path) -> str:
    guess = nearest(name, runs)
    if guess is not None:
        return f" Did you mean {folder / guess}?"
    if runs:
        listing = sorted(runs)
        return f" Runs in {folder}: {', '.join(listing[:8])}{' ...' if len(listing) > 8 else ''}."
    return f" There are no runs in {folder}."


def list_runs(folder: Path | str) -> list[dict[str, Any]]:
    """One row per run in a folder (or for the folder, if it is a run itself), newest first, as plain data.

    Raises:
        RequestError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RequestError(f"There is no folder {folder}; runs are written to runs/NAME unless --out says otherwise.")
    runs = [RunDirectory(folder)] if (folder / "recipe.yaml").is_file() else _runs_in(folder)
    rows = [_row(run) for run in runs]
    return sorted(rows, key=lambda row: row["changed"], reverse=True)


def _row(run: RunDirectory) -> dict[str, Any]:
    files = (run.recipe_path, run.metrics_path, run.result_path)
    changed = max(path.stat().st_mtime for path in files if path.is_file())
    row: dict[str, Any] = {"name": run.path.resolve().name, "path": str(run.path), "changed": changed}
    try:
        final, cost, plan = run.final(), run.cost(), run.plan()
        row |= {"status": run.status(), "step": cost["steps"] or 0, "total_steps": plan.get("total_steps")}
        row |= {"parameters": plan.get("parameters"), "loss": final.get("loss")}
        row |= {"validation/loss": final.get("validation/loss")}
        row |= {key: cost[key] for key in ("tokens", "flops", "seconds")}
    except CorruptFile as error:
        # One broken run must not hide the others from a listing.
        row |= {"status": "failed", "error": str(error)}
    return row


def split_step(start: str) -> tuple[str, int | None]:
    """`RUN@step` as the path of the run and the step; `RUN` alone has none."""
    path, at, step = start.rpartition("@")
    return (path, int(step)) if at and step.isdigit() else (start, None)
