"""Preparing: products made, every arm planned and matched, and all refused that can be, before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from foretrain.console import Terminal
from foretrain.hashing import hash_data
from foretrain.recipe import make_recipe
from foretrain.studies.executors.base import Job, Pool
from foretrain.studies.faults import control_name, product_names
from foretrain.studies.planning import ArmPlan, Products, gathered, plan_jobs, planned_runs
from foretrain.studies.refusals import (
    refuse_incomparable,
    refuse_other_study,
    refuse_unknown_figures,
    refuse_unmatched,
    refuse_unmergeable,
)
from foretrain.studies.study import Study
from foretrain.studies.trials import Trial, trials_of
from foretrain.studies.tuning import Tuned


class Preparation:
    """What is known of a study before its first trial.

    Args:
        study: what is compared.
        folder: its directory.
        pool: workers that take jobs.
        terminal: where progress is shown.

    Attributes:
        products: what was made for its arms.
        plans: every arm's runs, by its name.
        controls: the baseline with larger budgets, by name: with those FLOPs added that an arm paid once.
        higher: whether a higher figure is better, by metric.
        largest: the largest difference of an arm's cost from the baseline's, as a share.
    """

    def __init__(self, study: Study, folder: Path, pool: Pool, terminal: Terminal) -> None:
        self.study, self.folder, self.pool, self.terminal = study, folder, pool, terminal
        self.products = Products(study)
        self.plans: dict[str, ArmPlan] = {}
        self.controls: dict[str, ArmPlan] = {}
        self.higher: dict[str, bool] = {}
        self.largest = 0.0
        self._amount: float | None = None
        self._known: dict[str, dict[str, Any]] = {}

    def make(self) -> None:
        """Products, and plans of all arms as the study file has them.

        Raises:
            RequestError: something about the study is wrong, or its directory holds another one.
            RunError: a product failed.
        """
        refuse_other_study(self.study, self.folder)
        self._make_products()
        self._amount = self._plan({name: None for name in self.study.arms})
        self._refuse(known=not any(self.study.tuning(name) for name in self.study.arms))

    def make_again(self, tuned: Mapping[str, Tuned | None]) -> None:
        """Plans of all arms with what each has chosen.

        Raises:
            RequestError: so they do not match, or the directory holds trials of other choices.
        """
        self._plan(tuned, self._amount)
        self._refuse(known=True)

    def _make_products(self) -> None:
        jobs = self.products.jobs()
        if jobs:
            self._refuse_before_products()
            self.terminal.say(f"making {', '.join(job.name for job in jobs)} (or finding what was made before)")
            self.products.take(gathered(self.pool, jobs))

    def _refuse_before_products(self) -> None:
        """Refuse figures that no arm will produce before products are trained, as far as arms are known without."""
        arms = {name: arm for name, arm in self.study.arms.items() if not any(product_names([arm.set, *arm.members]))}
        fresh = {name: arm.model_copy(update={"start": None}) for name, arm in arms.items()}
        study = self.study.model_copy(update={"arms": fresh})
        jobs = [job for name in fresh for job in plan_jobs(study, self.products, name, (), None, study.seeds[0])]
        found = self._costs([replace(job, call="foretrain.studies.trial:foresee") for job in jobs])
        plans = {name: ArmPlan(name, arm, tuple(planned_runs(study, name, (), found))) for name, arm in fresh.items()}
        refuse_unknown_figures(study, plans)

    def _costs(self, jobs: Sequence[Job]) -> dict[str, dict[str, Any]]:
        """What planning jobs find, by their names; what was asked before is not asked again."""
        keys = {job.name: hash_data([job.call, job.payload]) for job in jobs}
        found = gathered(self.pool, [job for job in jobs if keys[job.name] not in self._known])
        self._known |= {keys[name]: cost for name, cost in found.items()}
        return {name: self._known[key] for name, key in keys.items()}

    def _plan(self, tuned: Mapping[str, Tuned | None], amount: float | None = None) -> float | None:
        """Plan every arm; returns how much of the matched unit a trial spends."""
        study, base = self.study, self.study.baseline
        seed = study.seeds[0]

        def plan(names: Sequence[str], amount: float | None) -> None:
            extra = {name: (found.changes,) if (found := tuned[name]) else () for name in names}
            jobs = [job for name in names for job in plan_jobs(study, self.products, name, extra[name], amount, seed)]
            found_costs = self._costs(jobs)
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
            for name in names:
                more = max(0.0, self.plans[name].scoring - self.plans[base].scoring)
                self.plans[name] = replace(self.plans[name], one_off=self.plans[name].one_off + more)

        self.terminal.say(f"planning {len(study.arms)} arms")
        self.plans = {}
        if study.match == "none":
            plan(list(study.arms), None)
            return None
        plan([base], amount)
        amount = self.plans[base].total(study.match) if amount is None else amount
        plan([name for name in study.arms if name != base], amount)
        self.plans = {name: self.plans[name] for name in study.arms}
        self._plan_controls(amount)
        return amount

    def _plan_controls(self, amount: float) -> None:
        """For every arm that had one-off costs, the baseline with those FLOPs added to its budget."""
        study, base = self.study, self.plans[self.study.baseline]
        per_flop = base.total(study.match) / base.total("flops")
        extra: tuple[Mapping[str, Any], ...] = (base.tuned,) if base.tuned else ()
        paid = {
            control_name(base.name, name): (name, amount + plan.one_off * per_flop)
            for name, plan in self.plans.items()
            if plan.one_off
        }
        jobs = [
            job
            for control, (_, more) in paid.items()
            for job in plan_jobs(study, self.products, base.name, extra, more, study.seeds[0], control)
        ]
        found = self._costs(jobs)
        self.controls = {}
        for control, (name, _) in paid.items():
            runs = tuple(planned_runs(study, base.name, extra, found, control))
            self.controls[control] = ArmPlan(control, base.arm, runs, tuned=base.tuned, against=name)

    def _refuse(self, known: bool) -> None:
        """Everything that can be known to go wrong.

        Args:
            known: whether the plans are those of the trials themselves; else of before the arms are tuned.
        """
        self.higher = refuse_unknown_figures(self.study, self.plans)
        refuse_incomparable(self.study, self.plans)
        refuse_unmergeable(self.plans)
        self.largest = refuse_unmatched(self.study, self.plans)
        plans = [*self.plans.values(), *self.controls.values()]
        for plan in plans:
            first = self.trials(plan)[0]
            if first.merge is not None:
                for run, recipe in zip(plan.runs, first.recipes, strict=True):
                    first.merge.check(make_recipe(recipe), run.cost["steps"])
        for trial in (trial for plan in plans for trial in self.trials(plan)) if known else ():
            trial.refuse_other()

    def trials(self, plan: ArmPlan) -> list[Trial]:
        """The trials of an arm, one a seed."""
        return trials_of(self.study, plan, self.folder / "trials", self.products)
