"""Trials: one arm with one seed each, where its runs lie, and what they measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretrain.budget import pause_step
from foretrain.comparison import recipe_difference
from foretrain.errors import RequestError
from foretrain.merging.base import Merge
from foretrain.run_directory import RunDirectory, Series, split_step
from foretrain.running import FREE_TO_CHANGE
from foretrain.studies.executors.base import Job
from foretrain.studies.planning import ArmPlan, Products
from foretrain.studies.study import Metric, Study

FREE = ("name", *FREE_TO_CHANGE)
"""Keys of a recipe that change nothing of what a trial computes."""


@dataclass(frozen=True)
class Trial:
    """One arm with one seed.

    Attributes:
        home: its folder. One run lies in it as it is; several, or one that is merged, in folders of their own.
    """

    study: Study
    plan: ArmPlan
    seed: int
    home: Path
    products: Products

    @property
    def name(self) -> str:
        """Arm and seed in words."""
        return f"{self.plan.name}, seed {self.seed}"

    @property
    def folders(self) -> list[Path]:
        """The run directories of its runs."""
        if self.plan.arm.merge is None:
            return [self.home]
        return [self.home / f"member-{number}" for number in range(len(self.plan.runs))]

    @cached_property
    def judged(self) -> RunDirectory:
        """The run directory whose figures judge the arm: that of its run, or of what its runs were merged into."""
        return RunDirectory(self.home if self.plan.arm.merge is None else self.home / "merged")

    @property
    def done(self) -> bool:
        """Whether it has run to its end, and was merged as the arm says."""
        same = self.merge is None or self.judged.plan().get("merge") == self.merge.model_dump(mode="json")
        return same and self.judged.status() == "done"

    @cached_property
    def merge(self) -> Merge | None:
        """What is made of its runs, with each `product:NAME` as the folder of that product's model."""
        merge = self.plan.arm.merge
        if merge is None:
            return None
        return type(merge).model_validate(self.products.resolve(merge.model_dump(mode="json"), self.seed))

    @cached_property
    def recipes(self) -> list[dict[str, Any]]:
        """The recipes of its runs, as plain data: each with the whole number of steps that it was given."""
        made = []
        for number, run in enumerate(self.plan.runs):
            name = f"{self.study.name}-{self.plan.name}-{self.seed}" + (f".{number}" if len(self.plan.runs) > 1 else "")
            # Members of one trial differ by their seeds at least; those of two trials never share one.
            seed = self.seed if number == 0 else self.seed + 1_000_003 * number
            fixed = {"budget": {"steps": run.cost["steps"]}, "name": name}
            changes = self.products.resolve([{"seed": seed}, *run.changes, fixed], self.seed)
            made.append(self.study.recipe(changes, f"arm '{self.plan.name}'").plain())
        return made

    def refuse_other(self) -> None:
        """Refuse a folder that holds runs of another recipe, of other text, or that began with other weights.

        Raises:
            RequestError: what lies there was made by another study, or an older version of this one.
        """
        start = self.products.start(self.plan.arm, self.seed)
        for folder, recipe, planned in zip(self.folders, self.recipes, self.plan.runs, strict=True):
            run = RunDirectory(folder)
            before, plan = run.recipe(), run.plan()
            if not before:
                continue
            changed = [change for change in recipe_difference(before, recipe) if not change[0].startswith(FREE)]
            told = [f"{key} was {old!r} and is {new!r}" for key, old, new in changed[:4]]
            if not changed and not _begins_with(plan.get("parent"), start):
                told = ["it began with other weights"]
            hashes = plan.get("hashes", {})
            other = [
                name
                for what in ("corpus", "scores")
                for name, value in planned.cost.get(what, {}).items()
                if hashes.get(what, {}).get(name, value) != value
            ]
            if not told and other:
                raise RequestError(
                    f"{folder} was trained on other text than there is now (domain {', '.join(other)}), so new trials "
                    "would not compare with it. Put the files back, or begin the study again by `--restart`."
                )
            if told:
                raise RequestError(
                    f"{folder} holds a trial of another study ({'; '.join(told)}). Give this study a directory of its "
                    "own by `--out`, or begin it again by `--restart`."
                )

    def jobs(self, until: float | None) -> list[Job]:
        """The jobs that take its runs to a share of their budget, or to the end."""
        start = self.products.start(self.plan.arm, self.seed)
        return [
            Job(
                f"{self.name}#{number}",
                "foretrain.studies.trial:run_trial",
                {"recipe": recipe, "folder": str(folder), "start": start, "until": until},
            )
            for number, (folder, recipe) in enumerate(zip(self.folders, self.recipes, strict=True))
            if RunDirectory(folder).status() != "done"
        ]

    def merge_jobs(self) -> list[Job]:
        """The job that merges its runs, where they are to be merged and have not been."""
        if self.merge is None or self.done:
            return []
        payload = {
            "merge": self.merge.model_dump(mode="json"),
            "plugins": self.study.base["plugins"],
            "runs": [str(folder) for folder in self.folders],
            "folder": str(self.judged.path),
        }
        return [Job(f"{self.name}#merge", "foretrain.studies.trial:merge_trial", payload)]

    def cost(self) -> dict[str, Any]:
        """Steps, tokens, FLOPs, seconds of all its runs so far, and the largest memory of tensors, in bytes."""
        costs = [RunDirectory(folder).cost() for folder in self.folders]
        whole = {key: sum(int(cost[key] or 0) for cost in costs) for key in ("steps", "tokens", "flops")}
        seconds = sum(float(cost["seconds"] or 0) for cost in costs)
        return {**whole, "seconds": seconds, "peak_memory": max(int(cost["tensor_memory"] or 0) for cost in costs)}


def _begins_with(parent: Mapping[str, Any] | None, start: str | None) -> bool:
    """Whether a run began with the weights that a trial begins with: `RUN`, `RUN@step`, or None for new ones."""
    if parent is None or start is None:
        return parent is None and start is None
    path, step = split_step(start)
    return str(parent["run"]) == str(Path(path).resolve()) and step in (None, parent["step"])


def value(metric: Metric, figure: str, higher: bool, trial: Trial, base: Trial, share: float) -> float | None:
    """What a trial measured of a metric; None where it did not.

    Args:
        metric: how the figure is read.
        figure: its name.
        higher: whether a higher figure is better.
        trial: the trial.
        base: the baseline's with the same seed, which says what is to be reached.
        share: 1 for the end of the run; below, the share of the budget at which it was, or is, looked at. Where
            something was reached does not depend on it: a run that was stopped before has not reached it.
    """
    run = trial.judged
    if metric.at == "end":
        return run.final().get(figure) if share == 1 else _at_share(run, figure, share)
    if metric.at == "half":
        return _at_share(run, figure, min(share, 0.5))
    if metric.at in ("best", "worst"):
        return _best(run, figure, higher == (metric.at == "best"), share)
    target = _best(base.judged, figure, higher)
    return None if target is None else _reached(run, figure, higher, target, base, trial.study.match)


def _at_share(run: RunDirectory, figure: str, share: float) -> float | None:
    values = _up_to(run, figure, share)
    return float(values[-1]) if values.size else None


def _best(run: RunDirectory, figure: str, higher: bool, share: float = 1.0) -> float | None:
    values = _up_to(run, figure, share)
    return None if values.size == 0 else float(values.max() if higher else values.min())


def _up_to(run: RunDirectory, figure: str, share: float) -> NDArray[np.float64]:
    """What was seen of a figure up to a share of the run, where it is paused."""
    total, found = run.plan().get("total_steps") or 0, spending(run, figure, "steps")
    until = np.inf if share == 1 else pause_step(share, total)
    return found.values[found.steps <= until]


def _reached(run: RunDirectory, figure: str, higher: bool, target: float, base: Trial, match: str) -> float | None:
    """The share of the baseline's budget after which a curve first is as good as `target`; between points, a line."""
    unit: Literal["steps", "tokens", "flops"] = "steps" if match in ("none", "steps") else match  # type: ignore[assignment]
    spent = spending(run, figure, unit)
    sign = -1.0 if higher else 1.0
    total = base.plan.total(unit)
    before: tuple[float, float] | None = None
    for place, height in zip(spent.steps.tolist(), (sign * spent.values).tolist(), strict=True):
        if height <= sign * target:
            if before is None or before[1] == height:
                return place / total
            part = (before[1] - sign * target) / (before[1] - height)
            return (before[0] + part * (place - before[0])) / total
        before = (place, height)
    return None


def spending(run: RunDirectory, figure: str, unit: str) -> Series:
    """A figure's curve over what was spent (`steps`, `tokens`, `flops`); its end is what the run's result says."""
    column = "step" if unit == "steps" else unit
    rows = [row for row in run.metrics() if row.get(figure) is not None and math.isfinite(row[figure])]
    points = {int(row[column]): float(row[figure]) for row in rows}
    if run.status() == "done" and (last := run.final().get(figure)) is not None:
        # In the precision that judges, which is not the one it trained in. The best is the best of this curve, too:
        # a baseline would else fail to reach what was only seen before its last point was measured again.
        points[int(run.cost()[unit] or 0)] = last
    return Series(np.array(list(points), dtype=np.int64), np.array(list(points.values()), dtype=np.float64))


def trials_of(study: Study, plan: ArmPlan, folder: Path, products: Products) -> list[Trial]:
    """The trials of an arm, one a seed."""
    return [Trial(study, plan, seed, folder / plan.name / f"seed-{seed}", products) for seed in study.seeds]
