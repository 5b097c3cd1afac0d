"""Train once: several small, disjoint interventions in one run, each read by its own metric, instead of a run for each.

First it is checked that they do not disturb each other: from a checkpoint of the untouched run, short runs go on with
nothing put in, with each intervention alone, and with all (`interference.py`). Then the run with all of them is
compared with the untouched one at the full budget, which gives a verdict for each intervention. Both are ordinary
studies; the result stands in `train_once.json`. After Bordt and others, arXiv 2509.23383.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from foretrain.console import Terminal
from foretrain.errors import RequestError, unknown_name
from foretrain.files import write_json
from foretrain.parts import PartOf
from foretrain.recipe import Recipe, read_recipe
from foretrain.reports.train_once_report import write_report
from foretrain.section import Count, Number, Section, read_section
from foretrain.steering.injection import Injection, Intervention
from foretrain.studies.conducting import conduct
from foretrain.studies.executors.base import Executor
from foretrain.studies.interference import CONTROL, JOINT, UNTOUCHED, agreement, answers, cost, interference
from foretrain.studies.study import Metric, Name, Study, make_study, with_base

FILE = "train_once.json"
VALIDATION = "validation/loss"
_SAME = "The arms differ in which tokens they read and in nothing that costs, so equal steps are equal FLOPs."


def _figure_alone(value: Any) -> Any:
    """The name of a figure, as the metric that reads it."""
    return {"figure": value} if isinstance(value, str) else value


class Watched(Intervention):
    """An intervention, and the metric that reads its effect."""

    metric: Annotated[Metric, BeforeValidator(_figure_alone, json_schema_input_type=Metric | str)]
    """The figure that reads it (`task/NAME/METRIC`), or a metric with the smallest effect that matters."""


class Control(Intervention):
    """Something that is known to disturb one of the interventions, such as one that contradicts it."""

    disturbs: Name
    """The intervention whose metric it should move."""


class Check(Section):
    """The interference test before the full runs."""

    at: Number = Field(0.5, gt=0, lt=1)
    """Share of the untouched run at which the short runs begin."""
    steps: Count = Field(100, gt=0)
    """Steps of each of them. The learning rate is at first what the untouched run has there, and falls to zero, which
    leaves less to chance."""
    repeats: Count | None = Field(None, gt=0)
    """How many times each document is put into them; unset: as often as in the full run."""
    stop: bool = True
    """Whether the full runs are left out where an interaction is found."""
    control: Control | None = None
    """Acts in a short run of its own and nowhere else: a check that does not see it could not see others either."""


class TrainOnce(Section):
    """What is put into the one run."""

    interventions: dict[Name, Watched] = Field(min_length=2)
    """Interventions by name, each with its metric."""
    check: Check | None = Check()
    """The interference test; null for none."""
    solo: bool = False
    """Whether every intervention also gets full runs of its own, to compare with the joint one; this saves nothing."""
    validation: Metric = Metric()
    """How the loss on validation text is judged, which the interventions should leave as it is."""

    @model_validator(mode="after")
    def _free_names(self) -> TrainOnce:
        taken = [name for name in (UNTOUCHED, JOINT, CONTROL) if name in self.interventions]
        if taken:
            raise ValueError(f"interventions: '{taken[0]}' is the name of an arm; choose another")
        control = self.check.control if self.check is not None else None
        if control is not None and control.disturbs not in self.interventions:
            told = unknown_name("intervention", control.disturbs, self.interventions)
            raise ValueError(f"check.control.disturbs: {told}")
        return self


class TrainOnceStudy(Section):
    """A study of several interventions in one run."""

    format: Literal[1] = 1
    """Version of the format."""
    name: Name = "train-once"
    """Its name."""
    question: str = ""
    """What it asks, in a sentence."""
    base: dict[str, Any]
    """The untouched recipe: a file, or the recipe itself. Its tasks read the interventions."""
    train_once: TrainOnce
    """What is put in, and how it is checked."""
    seeds: int | list[int] = 5
    """Seeds, or how many: each has its own order of data and its own places for what is put in."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Rate of error of each family of verdicts."""
    executor: PartOf[Executor] = Field({"kind": "local"}, validate_default=True)
    """Where the runs run."""

    @property
    def names(self) -> list[str]:
        """The interventions."""
        return list(self.train_once.interventions)

    @property
    def disturbed(self) -> str | None:
        """The intervention that the check's control should disturb; None where there is no control."""
        check = self.train_once.check
        return check.control.disturbs if check is not None and check.control is not None else None

    @property
    def place(self) -> int:
        """Where in the recipe's steering the interventions stand."""
        return len(self.base["steering"])

    def full(self) -> Study:
        """The study at the full budget: untouched, joint, and each alone where that is asked for."""
        arms = {UNTOUCHED: self._active([]), JOINT: self._active(self.names)}
        if self.train_once.solo:
            arms |= {name: self._active([name]) for name in self.names}
        validation = self.train_once.validation
        judge = validation if validation.figure is not None else validation.model_copy(update={"figure": VALIDATION})
        metrics = {name: found.metric for name, found in self.train_once.interventions.items()} | {VALIDATION: judge}
        return self._study("full", arms, metrics, {})

    def check(self) -> Study | None:
        """The study of short runs from a checkpoint of each seed's untouched run; None where none is asked for.

        Raises:
            RequestError: the budget is in FLOPs, so the learning rate at the checkpoint is not known.
        """
        check = self.train_once.check
        if check is None:
            return None
        short: dict[str, Any] = {
            "budget": {"steps": check.steps},
            "schedule": {"kind": "linear", "warmup": 0},
            "optimizer.lr": self._rate(check.at),
        }
        spread: dict[str, Any] = {"start": 0.0, "end": 1.0}
        if check.repeats is not None:
            spread["repeats"] = check.repeats
        alone = [*self.names, *([] if check.control is None else [CONTROL])]
        short[f"steering.{self.place}.interventions"] = {name: spread for name in alone}
        acting = {UNTOUCHED: [], JOINT: self.names} | {name: [name] for name in alone}
        arms = {arm: {"set": {**short, **self._active(active)}, "start": "base"} for arm, active in acting.items()}
        metrics = {
            name: found.metric.model_copy(update={"at": "end"}) for name, found in self.train_once.interventions.items()
        }
        products = {"base": {"set": self._active([]), "until": check.at, "per_seed": True}}
        return self._study("check", arms, metrics, products, check.control)

    def _study(
        self,
        part: str,
        arms: Mapping[str, Any],
        metrics: Mapping[str, Metric],
        products: Mapping[str, Any],
        control: Control | None = None,
    ) -> Study:
        declared: dict[str, Intervention] = {**self.train_once.interventions}
        if control is not None:
            declared[CONTROL] = control
        injected = {
            "kind": "injection",
            "interventions": {
                name: found.model_dump(mode="json", exclude={"metric", "disturbs"}) for name, found in declared.items()
            },
        }
        data = {
            "name": f"{self.name}-{part}",
            "question": self.question,
            "base": {**self.base, "steering": [*self.base["steering"], injected]},
            "arms": arms,
            "baseline": UNTOUCHED,
            "seeds": self.seeds,
            "match": "steps",
            "reason": _SAME,
            "metrics": {name: metric.model_dump(mode="json") for name, metric in metrics.items()},
            "alpha": self.alpha,
            "products": products,
            "executor": self.executor.model_dump(mode="json"),
        }
        return make_study(data, source=f"{self.name}, {part}")

    def _active(self, names: Sequence[str]) -> dict[str, Any]:
        return {f"steering.{self.place}.active": list(names)}

    def _rate(self, at: float) -> float:
        """The learning rate of the untouched run at a share of it."""
        recipe = Recipe.model_validate(self.base)
        budget = recipe.budget
        if budget.steps is None and budget.tokens is None:
            raise RequestError(
                f"{self.name}: the check goes on at the learning rate of the untouched run, so its budget should be in "
                "steps or tokens."
            )
        steps = budget.steps or (budget.tokens or 0) // recipe.batch.tokens
        return recipe.optimizer.lr * recipe.schedule.factor(round(at * steps), max(steps, 1))


def load_train_once(path: Path | str, overrides: Sequence[str] = ()) -> TrainOnceStudy:
    """Read a file with `base:` and `train_once:`, and apply `a.b=c` overrides.

    Raises:
        RequestError: no such file, broken YAML, or faults in it (all of them in one message).
    """
    path = Path(path)
    return make_train_once(read_recipe(path), path.parent, str(path), overrides)


def make_train_once(
    data: Mapping[str, Any], folder: Path | str = Path(), source: str = "study", overrides: Sequence[str] = ()
) -> TrainOnceStudy:
    """A study of interventions from plain data; relative paths start at `folder`, those of a base file at its own.

    Raises:
        RequestError: faults in it, in its base, or in the studies that it stands for.
    """
    folder = Path(folder)
    study = read_section(TrainOnceStudy, with_base(data, folder, source, overrides), source, folder)
    if any(part["kind"] == Injection.name() for part in study.base["steering"]):
        raise RequestError(f"{source}: the base has an injection already; list all interventions under `train_once`.")
    study.full()
    study.check()
    return study


def conduct_train_once(
    study: TrainOnceStudy, folder: Path, *, executor: Executor | None = None, terminal: Terminal | None = None
) -> dict[str, Any]:
    """Check, run, and judge, or go on from where an earlier call of the same was stopped.

    The two studies lie in `check/` and `full/` of the folder, each with a report; `report.html` is of both.

    Returns:
        What `train_once.json` holds: `check` (see `interference`), `full` (see `answers`), `solo` (see `agreement`) and
        `cost`; null for what was not run.

    Raises:
        RequestError: something about the request is wrong.
        RunError: a study could not go on.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    names, check, tested, ran = study.names, study.train_once.check, None, None
    short = study.check()
    if short is not None:
        tested = conduct(short, folder / "check", executor=executor, terminal=terminal)
    found = None if tested is None else interference(tested, names, study.disturbed)
    stopped = bool(found and check and check.stop and (found["interacting"] or found["changed"]))
    if not stopped:
        ran = conduct(study.full(), folder / "full", executor=executor, terminal=terminal)
    data = {
        "format": 1,
        "name": study.name,
        "interventions": names,
        "check": found,
        "stopped": stopped,
        "full": None if ran is None else answers(ran, names, VALIDATION),
        "solo": agreement(ran, names) if ran is not None and study.train_once.solo else None,
        "cost": cost(ran, tested, names),
    }
    write_json(folder / FILE, data)
    report = write_report(folder)
    if terminal is not None:
        terminal.say(f"done: {folder / FILE}, report {report}")
    return data
