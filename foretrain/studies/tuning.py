"""Tuning: each arm chooses from its grid, on data and seeds that judge nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from foretrain.console import Terminal
from foretrain.errors import RequestError, RunError
from foretrain.studies.executors.base import Pool
from foretrain.studies.planning import ArmPlan, Products, gathered, plan_jobs, planned_runs
from foretrain.studies.study import Study, Tuning
from foretrain.studies.trials import Trial

FIGURE = "validation/loss"
"""What is tuned for, measured on the `steer` split."""


@dataclass(frozen=True)
class Tuned:
    """What an arm chose.

    Attributes:
        changes: the settings, by key.
        flops: what all its tuning trials cost together.
        table: the figure of every combination, in the order of the grid.
        notes: what a reader should know of the choice.
    """

    changes: Mapping[str, Any]
    flops: float
    table: tuple[float | None, ...]
    notes: tuple[str, ...]


def tune(
    study: Study,
    products: Products,
    plans: Mapping[str, ArmPlan],
    pool: Pool,
    folder: Path,
    terminal: Terminal,
) -> dict[str, Tuned | None]:
    """The best combination of each arm's grid: the lowest loss on the `steer` split, over seeds of its own.

    Raises:
        RequestError: a choice does not fit (its budget does not pay for one step), or another study was tuned there.
        RunError: every tuning trial of an arm failed.
    """
    measured_elsewhere = {"evaluation.split": "steer", "tasks": {}, "probes": []}
    choices: dict[tuple[str, int], tuple[Mapping[str, Any], ...]] = {}
    jobs = []
    for name in study.arms:
        if (grid := study.tuning(name)) is None:
            continue
        amount = None if study.match == "none" else plans[name].total(study.match)
        for number, changes in enumerate(grid.combinations()):
            choices[name, number] = (changes, measured_elsewhere)
            title, seed = f"{name}, choice {number}", study.seeds[0]
            jobs += plan_jobs(study, products, name, choices[name, number], amount, seed, title)
    costs = gathered(pool, jobs)
    trials: dict[tuple[str, int], list[Trial]] = {}
    for (name, number), extra in choices.items():
        runs = tuple(planned_runs(study, name, extra, costs, f"{name}, choice {number}"))
        plan = ArmPlan(name, study.arms[name], runs)
        home = folder / name / f"choice-{number}"
        grid = study.tuning(name)
        assert grid is not None
        seeds = [max(study.seeds) + 1 + seed for seed in range(grid.seeds)]
        trials[name, number] = [Trial(study, plan, seed, home / f"seed-{seed}", products) for seed in seeds]
    _run(trials, pool, terminal)
    return {name: _choose(study, name, trials) for name in study.arms}


def _run(trials: Mapping[tuple[str, int], list[Trial]], pool: Pool, terminal: Terminal) -> None:
    every = [trial for found in trials.values() for trial in found]
    for trial in every:
        trial.refuse_other()
    jobs = [job for trial in every for job in trial.jobs(None)]
    with terminal.counting("Tuning", "trials", len(jobs)) as progress:
        for done, outcome in enumerate(pool.run(jobs), start=1):
            if outcome.status == "refused":
                raise RequestError(f"{outcome.job.name.partition('#')[0]}: {outcome.error}")
            if outcome.error is not None:
                progress.note(f"tuning trial of {outcome.job.name.partition('#')[0]} failed: {outcome.error}")
            progress.update(done)
    jobs = [job for trial in every if all_done(trial) for job in trial.merge_jobs()]
    if jobs:
        gathered(pool, jobs)


def all_done(trial: Trial) -> bool:
    """Whether every run of a trial ended well."""
    return not trial.jobs(None)


def _choose(study: Study, name: str, trials: Mapping[tuple[str, int], list[Trial]]) -> Tuned | None:
    grid = study.tuning(name)
    if grid is None:
        return None
    combinations, table, flops = grid.combinations(), list[float | None](), 0.0
    for number in range(len(combinations)):
        found = [trial.judged.final().get(FIGURE) if trial.done else None for trial in trials[name, number]]
        flops += sum(trial.cost()["flops"] for trial in trials[name, number])
        values = [figure for figure in found if figure is not None]
        table.append(fmean(values) if values and len(values) == len(found) else None)
    good = {number: figure for number, figure in enumerate(table) if figure is not None}
    if not good:
        raise RunError(f"All tuning trials of arm '{name}' failed; see {trials[name, 0][0].home.parent.parent}.")
    best = min(good, key=lambda number: (good[number], number))
    shown = "; ".join(
        f"{', '.join(f'{key} {value}' for key, value in changes.items())}: "
        + (f"{figure:.4f}" if figure is not None else "failed")
        for changes, figure in zip(combinations, table, strict=True)
    )
    notes = [f"{name} was tuned on the steer split ({shown})."]
    notes += _at_the_edge(name, grid, combinations[best])
    return Tuned(combinations[best], flops, tuple(table), tuple(notes))


def _at_the_edge(name: str, grid: Tuning, best: Mapping[str, Any]) -> list[str]:
    """A note for every number whose best value is the first or last of three or more: the optimum may lie outside."""
    return [
        f"{name}: the best {key} ({best[key]}) lies at the edge of its grid; the optimum may lie beyond it."
        for key, values in grid.grid.items()
        if len(values) > 2
        and all(isinstance(value, int | float) for value in values)
        and best[key] in (min(values), max(values))
    ]
