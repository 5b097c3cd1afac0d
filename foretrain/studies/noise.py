"""Noise: one recipe against itself, over seeds, and the floor that verdicts of other studies cite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretrain.comparison import recipe_difference
from foretrain.errors import CorruptFile, RequestError
from foretrain.files import read_json
from foretrain.recipe import read_recipe
from foretrain.studies.statistics import Floor, false_positive_rate
from foretrain.studies.study import Study, load_study, make_study

FILE = "noise.json"
GROUP = 5
"""Seeds of each side of an A/A study, where there are enough for two sides."""


def noise_study(path: Path, seeds: Sequence[int], overrides: Sequence[str] = ()) -> Study:
    """A study of one arm: a recipe, or the baseline of a study file, with these seeds.

    Raises:
        RequestError: faults in the file.
    """
    data = read_recipe(path)
    if "base" in data and "arms" in data:
        study = load_study(path, overrides)
        arm = study.arms[study.baseline]
        changed = {"arms": {study.baseline: arm}, "contrasts": [], "stopping": None, "seeds": list(seeds)}
        return study.model_copy(update={**changed, "name": f"{study.name}-noise", "tune": None, "noise": None})
    # Overrides are those of the recipe: `optimizer.lr=1e-3`.
    base = [f"base.{override}" for override in overrides]
    name = str(data.get("name", path.stem))
    arms: dict[str, Any] = {"plain": {}}
    return make_study(
        {"name": f"{name}-noise", "base": data, "arms": arms, "seeds": list(seeds)}, path.parent, str(path), base
    )


def noise_data(study: Study, found: Mapping[str, Any]) -> dict[str, Any]:
    """`noise.json`: the floor of every metric, and how often A/A studies over disjoint seeds are called different.

    Args:
        study: the study of one arm.
        found: its `study.json`.
    """
    metrics: dict[str, Any] = {}
    for name, metric in found["metrics"].items():
        values = list(found["arms"][study.baseline]["metrics"][name]["values"].values())
        group = min(GROUP, len(values) // 2)
        rate = None
        if group >= 2:
            rate = false_positive_rate(values, seeds=group, alpha=study.alpha, smallest=metric["smallest"] or 0.0)
        metrics[name] = {
            **{key: found["noise"][name][key] for key in ("sd", "low", "high", "seeds")},
            "figure": metric["figure"],
            "at": metric["at"],
            "values": values,
            "false_positives": rate,
        }
    return {
        "format": 1,
        "name": study.name,
        "recipe": _baseline(study),
        "arm": _beside(study),
        "budget": found["match"],
        "metrics": metrics,
    }


def read_noise(study: Study) -> tuple[dict[str, Floor], str] | None:
    """The floors that a study cites, by metric, and where they are from; None where it names none.

    Raises:
        RequestError: there is no noise study there, or it is one of another baseline.
    """
    if study.noise is None:
        return None
    path = Path(study.noise)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise RequestError(f"noise: there is no {path}; `foretrain study --noise BASE --out DIR` writes one.")
    data = _read(path)
    here = {**_baseline(study), **{f"arm {key}": value for key, value in _beside(study).items()}}
    there = {**data["recipe"], **{f"arm {key}": value for key, value in data.get("arm", {}).items()}}
    changed = [change for change in recipe_difference(there, here) if not _free(change[0])]
    if changed:
        keys = "; ".join(f"{key} was {old!r} there and is {new!r} here" for key, old, new in changed[:4])
        raise RequestError(f"noise: {path} was measured on another recipe than this study's baseline: {keys}.")
    floors = {}
    for name, metric in study.metrics.items():
        for found in data["metrics"].values():
            if (found["figure"], found["at"]) == (metric.figure or name, metric.at):
                floors[name] = Floor(**{key: found[key] for key in ("sd", "low", "high", "seeds")})
    return floors, str(data["name"])


def _baseline(study: Study) -> dict[str, Any]:
    recipe = study.recipe([study.arms[study.baseline].set], "baseline").plain()
    return {key: value for key, value in recipe.items() if key not in ("name", "seed")}


def _beside(study: Study) -> dict[str, Any]:
    """What makes a baseline's figures beside its recipe."""
    arm = study.arms[study.baseline].model_dump(mode="json", include={"start", "members", "merge"})
    return {key: value for key, value in arm.items() if value}


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
        if {"recipe", "metrics", "name"} <= data.keys():
            return dict(data)
    except (OSError, CorruptFile, AttributeError):
        pass
    raise RequestError(f"noise: {path} is not what `foretrain study --noise BASE --out DIR` writes; name its DIR.")


def _free(key: str) -> bool:
    return key.startswith(("track", "checkpoint", "plugins"))
