"""Conducting: the whole of a study, in order. Killed at any point, the same call goes on where it stood."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretrain import environment, units
from foretrain.console import CountingProgress, Terminal
from foretrain.errors import RequestError
from foretrain.files import write_atomic, write_json
from foretrain.forecasts.curves import Curve, of_run
from foretrain.lock import RunLock
from foretrain.reports.study_report import write_report
from foretrain.signals import sigterm_interrupts
from foretrain.studies.analysis import Findings, study_data
from foretrain.studies.executors.base import Executor, Job, Outcome, Pool
from foretrain.studies.noise import read_noise
from foretrain.studies.planning import ArmPlan
from foretrain.studies.preparing import Preparation
from foretrain.studies.study import Study
from foretrain.studies.trials import Trial, value
from foretrain.studies.tuning import tune


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
        found = Conductor(study, folder, pool, terminal).conduct()
        data = study_data(found)
        write_json(folder / "study.json", data)
        if report:
            write_report(folder)
    return data


class Conductor:
    """A study in execution: what comes before its trials, then those.

    Args:
        study: what is compared.
        folder: its directory.
        pool: workers that take jobs.
        terminal: where progress is shown.
    """

    def __init__(self, study: Study, folder: Path, pool: Pool, terminal: Terminal) -> None:
        self.study, self.folder, self.pool, self.terminal = study, folder, pool, terminal
        self.prepared = Preparation(study, folder, pool, terminal)
        self.plans: dict[str, ArmPlan] = {}
        self.trials: dict[str, list[Trial]] = {}
        self.errors: dict[tuple[str, int], str] = {}
        self.stopped: dict[str, float] = {}
        self.notes: list[str] = []

    def conduct(self) -> Findings:
        """Everything up to the last trial."""
        study, prepared = self.study, self.prepared
        floors = read_noise(study)
        prepared.make()
        # Only now: a study that is refused leaves what another one has written.
        write_json(self.folder / "environment.json", environment.describe())
        write_atomic(self.folder / "study.yaml", study.to_yaml())
        if any(study.tuning(name) for name in study.arms):
            chosen = tune(study, prepared.products, prepared.plans, self.pool, self.folder / "tuning", self.terminal)
            self.notes += [note for each in chosen.values() if each for note in each.notes]
            prepared.make_again(chosen)
        self.plans |= prepared.plans
        self._run(list(self.plans))
        self._second()
        return Findings(
            study,
            self.folder,
            self.plans,
            self.trials,
            prepared.products,
            self.errors,
            self.stopped,
            prepared.higher,
            prepared.largest,
            floors,
            self.notes,
        )

    # Trials --------------------------------------------------------------------------------------------------------

    def _run(self, names: Sequence[str]) -> None:
        """All trials of some arms, stopping those that the study's rule ends early."""
        self.trials |= {name: self.prepared.trials(self.plans[name]) for name in names}
        total = sum(len(self.trials[name]) for name in names)
        running = list(names)
        rule = self.study.stopping if self.study.baseline in names else None
        with self.terminal.counting("Running", "trials", total) as progress:
            for rung in rule.rungs() if rule is not None else ():
                assert rule is not None
                self._advance(running, rung, progress)
                curves = self._curves(running) if rule.reads_curves else None
                ended = rule.stopped(rung, self._figures(running, rung), self.study.baseline, curves)
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
        jobs = {trial.name: trial.jobs(until) for trial in trials}
        left = {name: len(waiting) for name, waiting in jobs.items()}
        done = sum(self._ended(trial) for trial in trials)

        def told(outcome: Outcome) -> None:
            nonlocal done
            trial = owner[outcome.job.name]
            self._heed(trial, outcome, progress)
            left[trial.name] -= 1
            if left[trial.name] == 0 and until is None:
                done += 1
                progress.update(done, f"{trial.name} {self._short(trial)}")

        progress.update(done)
        for outcome in self.pool.run([job for waiting in jobs.values() for job in waiting]):
            told(outcome)
        if until is None:
            self._merge(trials, progress)

    def _merge(self, trials: Sequence[Trial], progress: CountingProgress) -> None:
        good = [trial for trial in trials if (trial.plan.name, trial.seed) not in self.errors]
        jobs: list[Job] = [job for trial in good for job in trial.merge_jobs()]
        owner = {f"{trial.name}#merge": trial for trial in good}
        for outcome in self.pool.run(jobs) if jobs else ():
            self._heed(owner[outcome.job.name], outcome, progress)

    def _heed(self, trial: Trial, outcome: Outcome, progress: CountingProgress) -> None:
        """Keep what went wrong in a trial, the first time; a refusal ends the study."""
        if outcome.status == "refused":
            raise RequestError(f"{trial.name}: {outcome.error}")
        if outcome.error is not None:
            self.errors.setdefault((trial.plan.name, trial.seed), outcome.error)
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
        # What was reached when is known at the end; before, the figure itself tells who leads.
        read = metric.model_copy(update={"at": "end"}) if metric.at == "reached" else metric
        sign = -1.0 if self.prepared.higher[name] else 1.0
        figures: dict[str, dict[int, float]] = {}
        for arm in names:
            found = {
                trial.seed: value(read, metric.figure or name, self.prepared.higher[name], trial, trial, rung)
                for trial in self.trials[arm]
                if (arm, trial.seed) not in self.errors
            }
            figures[arm] = {seed: sign * number for seed, number in found.items() if number is not None}
        return figures

    def _curves(self, names: Sequence[str]) -> dict[str, dict[int, Curve]]:
        """The deciding figure of arms that are one run, over their steps so far, turned so that lower is better."""
        name, metric = next(iter(self.study.metrics.items()))
        sign = -1.0 if self.prepared.higher[name] else 1.0
        curves: dict[str, dict[int, Curve]] = {arm: {} for arm in names}
        for trial in (trial for arm in names for trial in self.trials[arm]):
            if trial.merge is None and (trial.plan.name, trial.seed) not in self.errors:
                with suppress(RequestError):  # nothing measured yet
                    curve = of_run(trial.judged, metric.figure or name)
                    curves[trial.plan.name][trial.seed] = replace(curve, values=sign * curve.values)
        return curves

    # The second verdict --------------------------------------------------------------------------------------------

    def _second(self) -> None:
        """Run the baseline again for every arm that had one-off costs, with those FLOPs added to its budget."""
        wanted = {name: plan for name, plan in self.prepared.controls.items() if plan.against not in self.stopped}
        if wanted:
            told = ", ".join(str(plan.against) for plan in wanted.values())
            self.terminal.say(f"running the baseline with the one-off costs of {told} added to its budget")
            self.plans |= wanted
            self._run(list(wanted))
