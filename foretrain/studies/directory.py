"""The study directory: the one place that knows the names of the files inside it, and how to read them.

Reading never fails on a study that is still going on or was killed: a file that is not there yet is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretrain.errors import CorruptFile, RequestError, nearest, unknown_name
from foretrain.files import read_json
from foretrain.plain_yaml import parse_yaml
from foretrain.run_directory import RunDirectory

_SEED = re.compile(r"seed-(\d+)$")


class StudyDirectory:
    """A study's directory.

    Files: `study.yaml` (resolved), `study.json` (the verdicts, once there are any), `environment.json`, `report.html`,
    and a folder for every trial, `trials/ARM/seed-K`: a run directory, or `member-N` and `merged` of one that
    merges.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe_path = self.path / "study.yaml"
        self.result_path = self.path / "study.json"
        self.environment_path = self.path / "environment.json"
        self.report_path = self.path / "report.html"
        self.trials_path = self.path / "trials"

    @classmethod
    def open(cls, path: Path | str) -> StudyDirectory:
        """The study directory at `path`.

        Raises:
            RequestError: there is no such folder, or it holds no study; the message names the nearest study beside it.
        """
        study = cls(path)
        if _is_study(study.path):
            return study
        folder = study.path.resolve()
        if (folder / "recipe.yaml").is_file():
            raise RequestError(f"{path} is a run and not a study: it holds recipe.yaml, and no study.yaml.")
        if folder.is_dir():
            inside = _studies_in(folder)
            listing = f"{', '.join(inside[:5])}{' ...' if len(inside) > 5 else ''}"
            hint = f" It holds studies: {listing}; name one of them." if inside else _nearest(study.path)
            raise RequestError(f"{path} is not a study: it holds neither study.yaml nor study.json.{hint}")
        raise RequestError(f"There is no study {path}.{_nearest(study.path)}")

    def study(self) -> dict[str, Any]:
        """What `study.json` says; empty before it is written.

        Raises:
            CorruptFile: it is not valid JSON.
        """
        return self._json(self.result_path)

    def environment(self) -> dict[str, Any]:
        """Versions, hardware and threads; empty where nothing tells."""
        return self._json(self.environment_path)

    def text(self) -> str:
        """The study file, resolved; empty where there is none."""
        return self.recipe_path.read_text(encoding="utf-8") if self.recipe_path.is_file() else ""

    def planned(self) -> dict[str, Any]:
        """The study file as plain data; empty where there is none.

        Raises:
            CorruptFile: it is not valid YAML.
        """
        try:
            data = parse_yaml(self.text())
        except ValueError as error:
            raise CorruptFile(f"{self.recipe_path} is not valid YAML: {error}") from error
        return data if isinstance(data, dict) else {}

    @property
    def name(self) -> str:
        """Name of the study: what its files say, or else that of its folder."""
        return str(self.study().get("name") or self.planned().get("name") or self.path.resolve().name)

    def trial_path(self, arm: str, seed: int) -> Path:
        """Where the trial of an arm with a seed is, or will be."""
        return self.trials_path / arm / f"seed-{seed}"

    def trial(self, arm: str, seed: int) -> RunDirectory:
        """The run directory whose figures judge a trial that was begun: that of its run, or of what was merged.

        Raises:
            RequestError: there is no such arm, or its trial with this seed was never begun.
        """
        path = self.trial_path(arm, seed)
        if path.is_dir():
            return RunDirectory(path / "merged" if (path / "member-0").is_dir() else path)
        arms = dict.fromkeys([*self.planned().get("arms", {}), *self.study().get("arms", {}), *self.trials()])
        if arm not in arms:
            raise RequestError(f"{self.path}: {unknown_name('arm', arm, arms)}")
        seeds = self.trials().get(arm) or []
        there = f"; there are: {', '.join(str(known) for known in seeds)}" if seeds else ""
        raise RequestError(f"{self.path}: arm '{arm}' has no trial with seed {seed}{there}.")

    def curves(self, path: str) -> RunDirectory:
        """The run behind a trial, by the `path` that `study.json` gives: where it was merged, the run before that.

        What was merged from several runs has no one curve; its run directory holds none.
        """
        run = RunDirectory(self.path / path)
        members = sorted(run.path.parent.glob("member-*")) if run.path.name == "merged" else []
        return RunDirectory(members[0]) if len(members) == 1 else run

    def trials(self) -> dict[str, list[int]]:
        """Seeds of the trials that were begun, by arm; arms in the order of the study file, seeds rising."""
        found: dict[str, list[int]] = {}
        folders = sorted(self.trials_path.iterdir()) if self.trials_path.is_dir() else []
        for folder in folders:
            names = [_SEED.fullmatch(child.name) for child in (folder.iterdir() if folder.is_dir() else ())]
            seeds = sorted(int(name[1]) for name in names if name)
            if seeds:
                found[folder.name] = seeds
        order = self.planned().get("arms")
        first = [arm for arm in (order if isinstance(order, Mapping) else ()) if arm in found]
        return {arm: found[arm] for arm in dict.fromkeys([*first, *found])}

    def _json(self, path: Path) -> dict[str, Any]:
        found = read_json(path) if path.is_file() else {}
        return found if isinstance(found, dict) else {}


def _is_study(folder: Path) -> bool:
    return (folder / "study.yaml").is_file() or (folder / "study.json").is_file()


def _studies_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [child.name for child in sorted(folder.iterdir()) if child.is_dir() and _is_study(child)]


def _nearest(path: Path) -> str:
    folder = path.resolve()
    names = [name for name in _studies_in(folder.parent) if name != folder.name]
    guess = nearest(folder.name, names)
    if guess is not None:
        return f" Did you mean {path.parent / guess}?"
    if names:
        return f" Studies in {path.parent}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}."
    return f" There are no studies in {path.parent}."
