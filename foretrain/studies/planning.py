"""Planning: every arm's runs with their whole number of steps, matched to the baseline, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretrain.errors import RequestError, RunError, unknown_name
from foretrain.recipe import load_recipe
from foretrain.studies.executors.base import Job, Pool
from foretrain.studies.study import Arm, Study

CLOSE = 0.01
"""Arms match when they differ by no more than this share of the baseline's cost, or by one step."""
Changes = tuple[Mapping[str, Any], ...]


class Products:
    """What was made once for the arms of a study: by name, and by seed where each seed has its own."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.made: dict[tuple[str, int | None], dict[str, Any]] = {}

    def jobs(self) -> list[Job]:
        """The jobs that make every product that an arm uses."""
        jobs = []
        for name in dict.fromkeys(name for arm in self.study.arms for name in self.used(arm)):
            product = self.study.products[name]
            for seed in self.study.seeds if product.per_seed else [None]:
                payload = {"recipe": self._recipe(name, seed), "until": product.until}
                jobs.append(Job(_product_name(name, seed), "foretrain.studies.trial:make_product", payload))
        return jobs

    def take(self, found: Mapping[str, dict[str, Any]]) -> None:
        """Keep what the jobs made, by their names."""
        for name, product in self.study.products.items():
            for seed in self.study.seeds if product.per_seed else [None]:
                if (made := found.get(_product_name(name, seed))) is not None:
                    self.made[name, seed] = made

    def used(self, arm: str) -> list[str]:
        """Names of the products an arm uses: the one it begins with, and those that its changes name.

        Raises:
            RequestError: a change names a product that there is not.
        """
        found = self.study.arms[arm]
        names = [*([found.start] if found.start else []), *_named([found.set, *found.members])]
        for name in names:
            if name not in self.study.products:
                raise RequestError(f"arms.{arm}: {unknown_name('product', name, self.study.products)}")
        return list(dict.fromkeys(names))

    def get(self, name: str, seed: int) -> dict[str, Any]:
        """A product as one seed of the study sees it."""
        return self.made[name, seed if self.study.products[name].per_seed else None]

    def start(self, arm: Arm, seed: int) -> str | None:
        """The run that a trial of this arm begins with, or None."""
        return None if arm.start is None else str(self.get(arm.start, seed)["start"])

    def resolve(self, changes: Any, seed: int) -> Any:
        """Changes with each `product:NAME` as the folder of that product's model."""
        if isinstance(changes, Mapping):
            return {key: self.resolve(value, seed) for key, value in changes.items()}
        if isinstance(changes, list | tuple):
            return [self.resolve(value, seed) for value in changes]
        named = isinstance(changes, str) and changes.startswith("product:")
        return self.get(changes.removeprefix("product:"), seed)["model"] if named else changes

    def cost(self, arm: str) -> float:
        """FLOPs that were paid once before a trial of this arm could run, beyond those the baseline needs too."""
        study = self.study
        own = set(self.used(arm)) - set(self.used(study.baseline))
        made = sum(float(self.get(name, study.seeds[0])["cost"]["flops"] or 0) for name in own)
        return made + max(0.0, study.arms[arm].one_off - study.arms[study.baseline].one_off)

    def plain(self) -> dict[str, Any]:
        """What was made, for `study.json`: hash and cost of each (those of its first seed where each has its own)."""
        made: dict[str, Any] = {}
        for (name, _), found in self.made.items():
            cost = {key: found["cost"][key] for key in ("steps", "tokens", "flops", "seconds")}
            made.setdefault(name, {"hash": found["hash"], **cost})
        return made

    def _recipe(self, name: str, seed: int | None) -> dict[str, Any]:
        product = self.study.products[name]
        base = self.study if product.recipe is None else None
        changes = [product.set, {} if seed is None else {"seed": seed}]
        if base is not None:
            return base.recipe(changes, f"products.{name}").plain()
        other = self.study.model_copy(update={"base": load_recipe(str(product.recipe)).plain()})
        return other.recipe(changes, f"products.{name}").plain()


@dataclass(frozen=True)
class RunPlan:
    """One run of an arm: the changes that make its recipe, and what it will cost."""

    changes: Changes
    cost: Mapping[str, Any]


@dataclass(frozen=True)
class ArmPlan:
    """An arm with its runs, matched.

    Attributes:
        one_off: FLOPs paid before its trials could run.
        tuned: the settings it chose, or None; `tuning_flops`: what the choice cost.
        against: for the baseline with a larger budget: the arm whose one-off cost it was given.
    """

    name: str
    arm: Arm
    runs: tuple[RunPlan, ...]
    one_off: float = 0.0
    tuned: Mapping[str, Any] | None = None
    tuning_flops: float = 0.0
    against: str | None = None

    def total(self, unit: str) -> float:
        """What a trial of this arm spends, in `steps`, `tokens` or `flops`."""
        return float(sum(run.cost[unit] for run in self.runs))

    def step(self, unit: str) -> float:
        """What its dearest step spends."""
        return 1.0 if unit == "steps" else float(max(run.cost[f"step_{unit}"] for run in self.runs))


def plan_jobs(
    study: Study, products: Products, arm: str, extra: Changes, amount: float | None, seed: int, title: str = ""
) -> list[Job]:
    """The jobs that plan the runs of an arm, each with its share of the amount; their names begin with the title."""
    found = study.arms[arm]
    members = found.members or [{}]
    jobs = []
    for number, member in enumerate(members):
        changes = products.resolve([found.set, member, *extra, {"seed": seed}], seed)
        own = amount is None or _sets_budget([found.set, member])
        payload = {
            "recipe": study.recipe(changes, f"arm '{arm}'").plain(),
            "start": products.start(found, seed),
            "unit": "steps" if study.match == "none" else study.match,
            "amount": None if own else _whole(study.match, amount or 0.0, len(members)),
        }
        jobs.append(Job(f"{title or arm}#{number}", "foretrain.studies.trial:plan_run", payload))
    return jobs


def planned_runs(study: Study, arm: str, extra: Changes, found: Mapping[str, Any], title: str = "") -> list[RunPlan]:
    """The runs of an arm from what its planning jobs found."""
    members = study.arms[arm].members or [{}]
    return [
        RunPlan((study.arms[arm].set, member, *extra), found[f"{title or arm}#{number}"])
        for number, member in enumerate(members)
    ]


def refuse_unmatched(study: Study, plans: Mapping[str, ArmPlan]) -> float:
    """The largest difference of an arm's cost from the baseline's, as a share.

    Raises:
        RequestError: an arm differs by more than one per cent and more than one step.
    """
    if study.match == "none":
        return 0.0
    unit, base = study.match, plans[study.baseline]
    largest, faults = 0.0, []
    for plan in plans.values():
        difference = abs(plan.total(unit) - base.total(unit))
        largest = max(largest, difference / base.total(unit))
        if difference > max(CLOSE * base.total(unit), plan.step(unit), base.step(unit)):
            faults.append(f"'{plan.name}' spends {plan.total(unit):.4g}")
    if faults:
        raise RequestError(
            f"The arms do not match: '{base.name}' spends {base.total(unit):.4g} {unit} a trial, but "
            f"{', '.join(faults)}. Leave out their `budget`, so that each is given the baseline's, or say "
            "`match: none` and why in `reason`."
        )
    return largest


def refuse_unknown_figures(study: Study, plans: Mapping[str, ArmPlan]) -> dict[str, bool]:
    """Whether higher is better, by metric.

    Raises:
        RequestError: an arm will not produce the figure of a metric, or nobody says which way is better.
    """
    directions: dict[str, bool] = {}
    for name, metric in study.metrics.items():
        figure = metric.figure or name
        for plan in plans.values():
            known: dict[str, bool | None] = dict(plan.runs[0].cost["figures"])
            if plan.arm.merge is not None:  # what comes out of a merge was never trained, and has no probes
                known = {
                    figure: higher for figure, higher in known.items() if figure.startswith(("validation", "task"))
                }
            if figure not in known and not any(each.endswith("/") and figure.startswith(each) for each in known):
                raise RequestError(f"metrics.{name}: in arm '{plan.name}' {unknown_name('figure', figure, known)}")
            if metric.at != "end":
                _refuse_without_curve(name, figure, f"`at: {metric.at}`", plan)
            elif study.stopping is not None and name == next(iter(study.metrics)):
                _refuse_without_curve(name, figure, "`stopping`", plan)
            higher = known.get(figure)
            if metric.direction is not None:
                higher = metric.direction == "higher"
            if metric.at == "reached":
                directions[name] = False
            elif higher is None:
                raise RequestError(f"metrics.{name}: say which way is better: `direction: lower` or `higher`.")
            else:
                directions[name] = higher
    return directions


def refuse_incomparable(study: Study, plans: Mapping[str, ArmPlan]) -> None:
    """Refuse a judged figure that means something else in one arm than in the baseline.

    Raises:
        RequestError: losses per token of two tokenizers, figures on two validation texts, means by other weights.
    """
    base = plans[study.baseline].runs[0].cost
    for name, metric in study.metrics.items():
        figure = metric.figure or name
        for plan in plans.values() if metric.judged else ():
            for cost in (run.cost for run in plan.runs):
                if cost["tokenizer"] != base["tokenizer"] and figure.endswith("loss"):
                    why = "its tokenizer differs, and losses per token do not compare; bits per byte do"
                elif figure == "validation/loss" and cost["weights"] != base["weights"]:
                    why = "it is a mean by the domains' weights, which differ; judge by validation/DOMAIN/loss"
                elif figure.startswith("validation/") and _other_text(figure, cost["judges"], base["judges"]):
                    why = "the text it is measured on differs"
                else:
                    continue
                raise RequestError(
                    f"metrics.{name}: '{figure}' of arm '{plan.name}' and of '{study.baseline}' do not compare: {why}."
                )


def _other_text(figure: str, judges: Mapping[str, str], base: Mapping[str, str]) -> bool:
    domains = [figure.split("/")[1]] if figure.count("/") == 2 else [*base, *judges]
    return any(judges.get(domain) != base.get(domain) for domain in domains)


def _refuse_without_curve(name: str, figure: str, asked: str, plan: ArmPlan) -> None:
    if plan.arm.merge is not None:
        raise RequestError(f"metrics.{name}: arm '{plan.name}' merges its runs, so there is no curve for {asked}.")
    if not any(figure.startswith(beginning) for beginning in plan.runs[0].cost["evaluated"]):
        raise RequestError(f"metrics.{name}: {asked} needs '{figure}' while the run goes on: give its task an `every`.")


def gathered(pool: Pool, jobs: Sequence[Job], told: Any = None) -> dict[str, dict[str, Any]]:
    """The results of jobs that must all succeed, by their names; `told` is called after each.

    Raises:
        RequestError: a job was refused.
        RunError: one failed.
    """
    found: dict[str, dict[str, Any]] = {}
    for outcome in pool.run(jobs):
        if outcome.status == "refused":
            raise RequestError(f"{outcome.job.name.partition('#')[0]}: {outcome.error}")
        if outcome.result is None:
            raise RunError(f"{outcome.job.name.partition('#')[0]}: {outcome.error}")
        found[outcome.job.name] = outcome.result
        if told is not None:
            told(outcome)
    return found


def _product_name(name: str, seed: int | None) -> str:
    return f"product {name}" if seed is None else f"product {name}, seed {seed}"


def _named(changes: Any) -> Iterable[str]:
    if isinstance(changes, Mapping):
        changes = list(changes.values())
    if isinstance(changes, list):
        for value in changes:
            yield from _named(value)
    elif isinstance(changes, str) and changes.startswith("product:"):
        yield changes.removeprefix("product:")


def _sets_budget(changes: Sequence[Mapping[str, Any]]) -> bool:
    return any(key.partition(".")[0] == "budget" for change in changes for key in change)


def _whole(unit: str, amount: float, members: int) -> float | int:
    share = amount / members
    return share if unit == "flops" else max(1, round(share))
