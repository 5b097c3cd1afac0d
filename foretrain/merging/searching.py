"""Searching: how good candidates of a merge are on what does not judge it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator
from transformers import PreTrainedModel

from foretrain.distributed import Group, alone
from foretrain.errors import RequestError, unknown_name
from foretrain.kernels.accelerate import accelerate
from foretrain.learner import Learner
from foretrain.modalities.base import modality_of
from foretrain.run_directory import RunDirectory
from foretrain.section import Count, Number, Section

if TYPE_CHECKING:
    from foretrain.plan import Plan
    from foretrain.recipe import Recipe

SPLIT = "steer"
"""The split of the corpus that methods may look at."""


class Search(Section):
    """What a merge chooses by, on data that does not judge it."""

    figures: dict[str, Number] = Field(min_length=1)
    """Figures and how much each counts: `steer/DOMAIN/loss` on the `steer` split of the corpus, or `task/NAME/METRIC`
    of a task whose items judge nothing. Each is divided by the best that the base or a tuned model has alone."""
    points: Count = Field(21, ge=2)
    """How many equally spaced values from 0 to 1 are tried."""

    @field_validator("figures")
    @classmethod
    def _no_judge(cls, figures: dict[str, float]) -> dict[str, float]:
        for name in figures:
            if name.startswith("validation/"):
                raise ValueError(f"'{name}' is measured on text that judges; search by `steer/...`, or by a task")
            if name.partition("/")[0] not in (SPLIT, "task") or name.count("/") < 2:
                raise ValueError(
                    f"'{name}' is no figure to search by; it should be steer/DOMAIN/loss or task/NAME/METRIC"
                )
        return figures

    def grid(self) -> list[float]:
        """The values that are tried."""
        return [point / (self.points - 1) for point in range(self.points)]

    def refuse_unknown(self, recipe: Recipe) -> None:
        """See that a recipe has what is searched by.

        Raises:
            RequestError: it has no such domain, split or task.
        """
        for figure in self.figures:
            beginning, name, _ = figure.split("/", 2)
            if beginning == "task" and name not in recipe.tasks:
                raise RequestError(f"merge.search: '{figure}': {unknown_name('task', name, recipe.tasks)}")
            if beginning == SPLIT and name not in recipe.corpus:
                raise RequestError(f"merge.search: '{figure}': {unknown_name('domain', name, recipe.corpus)}")
            if beginning == SPLIT and not recipe.corpus[name].steer:
                raise RequestError(f"merge.search: '{figure}' needs corpus.{name}.steer, such as 0.05.")


class Judge:
    """Measures models as the tasks and text of a run's recipe do; without a run it measures nothing.

    Attributes:
        run: whose recipe it is.
    """

    def __init__(self, run: RunDirectory | None) -> None:
        self.run = run

    def measure(self, model: PreTrainedModel, figures: Mapping[str, float]) -> dict[str, tuple[float, bool]]:
        """Figures of a model, each with whether higher is better.

        Raises:
            RequestError: there is no run, or its recipe has no such figure.
        """
        run = self._run()
        found: dict[str, tuple[float, bool]] = {}
        domains = {name.split("/")[1] for name in figures if name.startswith(f"{SPLIT}/")}
        if domains:
            learner = Learner(accelerate(model), "fp32", self._group)
            validation = self._plan.validation(SPLIT, domains=domains)
            losses = validation.measure(learner, self._objective(learner), self._group)
            found |= {name.replace("validation", SPLIT, 1): (value, False) for name, value in losses.items()}
        modality, recipe = modality_of(model.config), self._plan.recipe
        subject = modality.subject(model, modality.load_tokenizer(run.tokenizer_path), self._plan.context)
        for task in dict.fromkeys(name.split("/")[1] for name in figures if name.startswith("task/")):
            measured = recipe.tasks[task].evaluate(subject, recipe.seed)
            found |= {f"task/{task}/{name}": (m.value, m.higher_is_better) for name, m in measured.items()}
        for name in figures:
            if name not in found:
                raise RequestError(f"merge.search: {unknown_name('figure', name, found)}")
        return {name: found[name] for name in figures}

    def _run(self) -> RunDirectory:
        if self.run is None:
            raise RequestError(
                "merge.search: there is no run whose tasks and text could be searched by; name one under `runs`, or "
                "give the value that is searched for."
            )
        return self.run

    @cached_property
    def _group(self) -> Group:
        return alone()

    @cached_property
    def _plan(self) -> Plan:
        from foretrain.merging.evaluating import plan_of

        return plan_of(self._run())

    def _objective(self, learner: Learner) -> Any:
        from foretrain.merging.evaluating import objective_of

        return objective_of(self._plan, learner, self._group)


def score(
    figures: Mapping[str, tuple[float, bool]], best: Mapping[str, tuple[float, bool]], weights: Mapping[str, float]
) -> float:
    """The weighted mean of figures as shares of the best: value over best, or best over value where lower is better."""
    shares = {}
    for name, (value, higher) in figures.items():
        over, under = (value, best[name][0]) if higher else (best[name][0], value)
        shares[name] = over / under if under > 0 else float(over >= under)
    return sum(weights[name] * share for name, share in shares.items()) / sum(weights.values())


def best_of(found: list[dict[str, tuple[float, bool]]]) -> dict[str, tuple[float, bool]]:
    """The best value of each figure among several models."""
    return {
        name: ((max if higher else min)(each[name][0] for each in found), higher)
        for name, (_, higher) in found[0].items()
    }
