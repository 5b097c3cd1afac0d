"""Planning: every arm's runs with their whole number of steps, matched to the baseline, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretrain.errors import RequestError, RunError
from foretrain.recipe import load_recipe
from foretrain.studies.executors.base import Job, Pool
from foretrain.studies.faults import PRODUCT, named_in, product_names, sets_key
from foretrain.studies.study import Arm, Study

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
        """Names of the products an arm uses: the one it begins with, and those that its changes and its merge name."""
        found = self.study.arms[arm]
        names = [*([found.start] if found.start else []), *product_names(named_in(found))]
        return list(dict.fromkeys(names))

    def get(self, name: str, seed: int) -> dict[str, Any]:
        """A product as one seed of the study sees it; seeds that only tune see that of the first."""
        own = seed if seed in self.study.seeds else self.study.seeds[0]
        return self.made[name, own if self.study.products[name].per_seed else None]

    def start(self, arm: Arm, seed: int) -> str | None:
        """The run that a trial of this arm begins with, or None."""
        return None if arm.start is None else str(self.get(arm.start, seed)["start"])

    def resolve(self, changes: Any, seed: int) -> Any:
        """Changes with each `product:NAME` as the folder of that product's model."""
        if isinstance(changes, Mapping):
            return {key: self.resolve(value, seed) for key, value in changes.items()}
        if isinstance(changes, list | tuple):
            return [self.resolve(value, seed) for value in changes]
        named = isinstance(changes, str) and changes.startswith(PRODUCT)
        return self.get(changes.removeprefix(PRODUCT), seed)["model"] if named else changes

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

    @property
    def scoring(self) -> float:
        """FLOPs of scoring documents before it runs; its runs share them."""
        return float(max(run.cost["scoring"] for run in self.runs))

    def step(self, unit: str) -> float:
        """What its dearest step spends."""
        return 1.0 if unit == "steps" else float(max(run.cost[f"step_{unit}"] for run in self.runs))


def plan_jobs(
    study: Study, products: Products, arm: str, extra: Changes, amount: float | None, seed: int, title: str = ""
) -> list[Job]:
    """The jobs that plan the runs of an arm; their names begin with the title.

    Each run is given its share of the amount. Without one, and where another arm than the baseline sets a budget, the
    runs share what the recipe says; a member that sets its own has that.
    """
    found = study.arms[arm]
    members = found.members or [{}]
    # The baseline's budget is what is matched, so it does not bind the baseline where it is given another amount.
    own = amount is None or (arm != study.baseline and any(sets_key(each, "budget") for each in (found.set, *members)))
    jobs = []
    for number, member in enumerate(members):
        changes = products.resolve([found.set, member, *extra, {"seed": seed}], seed)
        recipe = study.recipe(changes, f"arm '{arm}'").plain()
        unit, whole = "steps" if study.match == "none" else study.match, amount
        if own:
            unit, whole = next((unit, given) for unit, given in recipe["budget"].items() if given is not None)
        alone = len(members) == 1 or (own and sets_key(member, "budget"))
        payload = {
            "recipe": recipe,
            "start": products.start(found, seed),
            "unit": unit,
            "amount": None if own and alone else _whole(unit, whole or 0.0, 1 if alone else len(members)),
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


def _whole(unit: str, amount: float, members: int) -> float | int:
    share = amount / members
    return share if unit == "flops" else max(1, round(share))
