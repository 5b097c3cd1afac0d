"""Conducting: the whole of a study, in order. Killed at any point, the same call goes on where it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from foretrain import environment, units
from foretrain.console import CountingProgress, Terminal
from foretrain.errors import RequestError
from foretrain.files import write_atomic, write_json
from foretrain.lock import RunLock
from foretrain.recipe import make_recipe
from foretrain.reports.study_report import write_report
from foretrain.signals import sigterm_interrupts
from foretrain.studies.analysis import Findings, study_data
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool
from foretrain.studies.noise import read_noise
from foretrain.studies.planning import (
    ArmPlan,
    Products,
    gathered,
    plan_jobs,
    planned_runs,
    refuse_incomparable,
    refuse_unknown_figures,
    refuse_unmatched,
)
from foretrain.studies.study import Study
from foretrain.studies.trials import Trial, trials_of, value
from foretrain.studies.tuning import Tuned, tune


def conduct(
    study: Study,
    folder: Path,
    *,
    executor: Executor | None = None,
    terminal: Terminal | None = None,
    report: bool = True,
) -> dict[str, Any]:
    """Run a study to its verdicts, or on from where an earlier call of the same was stopped.

    Args:
        study: what is compared.
        folder: its directory.
        executor: where the trials run, in place of the study's own.
        terminal: where progress is shown; nowhere if None.
        report: whether `report.html` is written.

    Returns:
        What `study.json` holds.

    Raises:
        RequestError: something about the request is wrong; nothing was trained.
        RunError: the study could not go on (a product failed, a disk is full). A trial that fails is only told of.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    terminal = terminal or Terminal(quiet=True)
    folder = folder.resolve()
    with sigterm_interrupts(), RunLock(folder), (executor or study.executor).open(folder) as pool:
        write_json(folder / "environment.json", environment.describe())
        write_atomic(folder / "study.yaml", study.to_yaml())
        found = Conductor(study, folder, pool, terminal).conduct()
        data = study_data(found)
        write_json(folder / "study.json", data)
        if report:
            write_report(folder)
    return data


class Conductor:
    """A study in execution: products, plans, tuning, trials, in this order.

    Args:
        study: what is compared.
        folder: its directory.
        pool: workers that take jobs.
        terminal: where progress is shown.
    """

    def __init__(self, study: Study, folder: Path, pool: Pool, terminal: Terminal) -> None:
        self.study, self.folder, self.pool, self.terminal = study, folder, pool, terminal
        self.products = Products(study)
        self.plans: dict[str, ArmPlan] = {}
        self.trials: dict[str, list[Trial]] = {}
        self.errors: dict[tuple[str, int], str] = {}
        self.stopped: dict[str, float] = {}
        self.higher: dict[str, bool] = {}
        self.notes: list[str] = []

    def conduct(self) -> Findings:
        """Everything up to the last trial."""
        study = self.study
        floors = read_noise(study)
        self._make_products()
        amount = self._plan({name: None for name in study.arms})
        largest = self._refuse()
        if any(study.tuning(name) for name in study.arms):
            chosen = tune(study, self.products, self.plans, self.pool, self.folder / "tuning", self.terminal)
            self.notes += [note for each in chosen.values() if each for note in each.notes]
            self._plan(chosen, amount)
            largest = self._refuse()
        self._run(list(self.plans))
        self._second(amount)
        return Findings(
            study,
            self.folder,
            self.plans,
            self.trials,
            self.products,
            self.errors,
            self.stopped,
            self.higher,
            largest,
            floors,
            self.notes,
        )

    # Before the first trial ----------------------------------------------------------------------------------------

    def _make_products(self) -> None:
        jobs = self.products.jobs()
        if jobs:
            self.terminal.say(f"making {', '.join(job.name for job in jobs)} (or finding what was made before)")
            self.products.take(gathered(self.pool, jobs))

    def _plan(self, tuned: Mapping[str, Tuned | None], amount: float | None = None) -> float | None:
        """Plan every arm; returns how much of the matched unit a trial spends."""
        study, base = self.study, self.study.baseline
        seed = study.seeds[0]

        def plan(names: Sequence[str], amount: float | None) -> None:
            extra = {name: (found.changes,) if (found := tuned[name]) else () for name in names}
            jobs = [job for name in names for job in plan_jobs(study, self.products, name, extra[name], amount, seed)]
            found_costs = gathered(self.pool, jobs)
            for name in names:
                chosen = tuned[name]
                self.plans[name] = ArmPlan(
                    name,
                    study.arms[name],
                    tuple(planned_runs(study, name, extra[name], found_costs)),
                    one_off=self.products.cost(name),
                    tuned=chosen.changes if chosen else None,
                    tuning_flops=chosen.flops if chosen else 0.0,
                )

        self.terminal.say(f"planning {len(study.arms)} arms")
        self.plans = {}
        if study.match == "none":
            plan(list(study.arms), None)
            return None
        plan([base], amount)
        amount = self.plans[base].total(study.match) if amount is None else amount
        plan([name for name in study.arms if name != base], amount)
        self.plans = {name: self.plans[name] for name in study.arms}
        return amount

    def _refuse(self) -> float:
        """Everything that can be known to go wrong, and what the arms differ by at most."""
        self.higher = refuse_unknown_figures(self.study, self.plans)
        refuse_incomparable(self.study, self.plans)
        largest = refuse_unmatched(self.study, self.plans)
        for plan in self.plans.values():
            if plan.arm.merge is not None:
                for run, recipe in zip(plan.runs, self._trials(plan)[0].recipes(), strict=True):
                    plan.arm.merge.check(make_recipe(recipe), run.cost["steps"])
        if not any(self.study.tuning(name) for name in self.study.arms):
            for plan in self.plans.values():
                for trial in self._trials(plan):
                    trial.refuse_other()
        return largest

    def _trials(self, plan: ArmPlan) -> list[Trial]:
        return trials_of(self.study, plan, self.folder / "trials", self.products)

    # Trials --------------------------------------------------------------------------------------------------------

    def _run(self, names: Sequence[str]) -> None:
        """All trials of some arms, stopping those that the study's rule ends early."""
        self.trials |= {name: self._trials(self.plans[name]) for name in names}
        total = sum(len(self.trials[name]) for name in names)
        running = list(names)
        rule = self.study.stopping if self.study.baseline in names else None
        with self.terminal.counting("Running", "trials", total) as progress:
            for rung in rule.rungs() if rule is not None else ():
                assert rule is not None
                self._advance(running, rung, progress)
                ended = rule.stopped(rung, self._figures(running, rung), self.study.baseline)
                for name in sorted(ended & set(running)):
                    self.stopped[name] = rung
                    running.remove(name)
                    progress.note(f"{name} is stopped at {units.share(rung)} of its budget")
            self._advance(running, None, progress)

    def _advance(self, names: Sequence[str], until: float | None, progress: CountingProgress) -> None:
        """Take the trials of some arms to a share of their budget, seed by seed, and merge those that ended."""
        trials = [self.trials[name][number] for number in range(len(self.study.seeds)) for name in names]
        trials = [trial for trial in trials if (trial.plan.name, trial.seed) not in self.errors]
        owner = {f"{trial.name}#{number}": trial for trial in trials for number in range(len(trial.folders))}
        left = {trial.name: len(jobs) for trial in trials if (jobs := trial.jobs(until))}
        done = sum(self._ended(trial) for trial in trials)

        def told(outcome: Outcome) -> None:
            nonlocal done
            trial = owner[outcome.job.name]
            if outcome.status == "refused":
                raise RequestError(f"{trial.name}: {outcome.error}")
            if outcome.error is not None:
                self.errors.setdefault((trial.plan.name, trial.seed), outcome.error)
                progress.note(f"{trial.name} failed: {outcome.error}")
            left[trial.name] -= 1
            if left[trial.name] == 0 and until is None:
                done += 1
                progress.update(done, f"{trial.name} {self._short(trial)}")

        progress.update(done)
        for outcome in self.pool.run([job for trial in trials for job in trial.jobs(until)]):
            told(outcome)
        if until is None:
            self._merge(trials, progress)

    def _merge(self, trials: Sequence[Trial], progress: CountingProgress) -> None:
        good = [trial for trial in trials if (trial.plan.name, trial.seed) not in self.errors]
        jobs: list[Job] = [job for trial in good for job in trial.merge_jobs()]
        owner = {f"{trial.name}#merge": trial for trial in good}
        for outcome in self.pool.run(jobs) if jobs else ():
            trial = owner[outcome.job.name]
            if outcome.status == "refused":
                raise RequestError(f"{trial.name}: {outcome.error}")
            if outcome.error is not None:
                self.errors[trial.plan.name, trial.seed] = outcome.error
                progress.note(f"{trial.name} failed: {outcome.error}")

    def _ended(self, trial: Trial) -> bool:
        key = (trial.plan.name, trial.seed)
        return key in self.errors or trial.plan.name in self.stopped or trial.done

    def _short(self, trial: Trial) -> str:
        """The deciding figure of a trial that has ended, in words."""
        name = next(iter(self.study.metrics))
        figure = self.study.metrics[name].figure or name
        with suppress(OSError):
            return f"{figure} {units.measured(trial.judged.final().get(figure))}"
        return ""

    def _figures(self, names: Sequence[str], rung: float) -> dict[str, dict[int, float]]:
        """The deciding metric of arms at a rung, turned so that lower is better."""
        name, metric = next(iter(self.study.metrics.items()))
        sign = -1.0 if self.higher[name] else 1.0
        figures: dict[str, dict[int, float]] = {}
        for arm in names:
            found = {
                trial.seed: value(metric, metric.figure or name, self.higher[name], trial, trial, rung)
                for trial in self.trials[arm]
                if (arm, trial.seed) not in self.errors
            }
            figures[arm] = {seed: sign * number for seed, number in found.items() if number is not None}
        return figures

    # The second verdict --------------------------------------------------------------------------------------------

    def _second(self, amount: float | None) -> None:
        """Run the baseline again for every arm that had one-off costs, with those FLOPs added to its budget."""
        study, base = self.study, self.plans[self.study.baseline]
        paid = {name: plan.one_off for name, plan in self.plans.items() if plan.one_off and name not in self.stopped}
        if not paid or amount is None:
            return
        controls = {f"{study.baseline}-given-{name}": name for name in paid}
        per_flop = base.total(study.match) / base.total("flops")
        extra: tuple[Mapping[str, Any], ...] = (base.tuned,) if base.tuned else ()
        jobs = [
            job
            for control, name in controls.items()
            for job in plan_jobs(
                study, self.products, study.baseline, extra, amount + paid[name] * per_flop, study.seeds[0], control
            )
        ]
        found = gathered(self.pool, jobs)
        for control, name in controls.items():
            runs = tuple(planned_runs(study, study.baseline, extra, found, control))
            self.plans[control] = ArmPlan(control, base.arm, runs, tuned=base.tuned, against=name)
        self.terminal.say(f"running the baseline with the one-off costs of {', '.join(paid)} added to its budget")
        self._run(list(controls))
