"""How far the tasks fell below where they began, at the worst moment of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PrivateAttr

from foretrain.errors import RequestError
from foretrain.modalities.base import modality_named
from foretrain.parts import Facts
from foretrain.probes.base import Probe

if TYPE_CHECKING:
    from foretrain.context import Context


class TaskDip(Probe):
    """The worst that each task of the recipe was so far, and how much worse than at the run's start.

    A model that goes on to new text may lose what it could do and find it again; the end alone does not tell. Figures,
    for each metric of each task, measured as often as this probe is: `TASK/METRIC` now, `TASK/METRIC/worst` so far, and
    `TASK/METRIC/dip`, the distance from the start to the worst (0 where it was never worse than at the start).
    """

    kind: Literal["task_dip"] = "task_dip"
    facts: ClassVar[Facts] = Facts(
        paper="Efficient Continual Pre-training by Mitigating the Stability Gap",
        arxiv="2406.14833",
        year=2024,
        answers="what did the model forget on the way?",
        overhead="all tasks, each time it measures",
    )

    _first: dict[str, float] = PrivateAttr(default_factory=dict)
    _worst: dict[str, float] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """See that there is something to measure.

        Raises:
            RequestError: the recipe has no task.
        """
        self._first.clear()
        self._worst.clear()
        if not context.recipe.tasks:
            raise RequestError(f"probe '{self.kind}' measures the recipe's tasks, and it has none; add one.")

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        recipe, found = context.recipe, dict[str, float]()
        with context.learner.evaluating():
            subject = modality_named(recipe.objective.modality).subject(context.model, context.text, context.length)
            for name, task in recipe.tasks.items():
                for metric, measured in task.evaluate(subject, recipe.seed).items():
                    found |= self._figures(f"{name}/{metric}", measured.value, measured.higher_is_better)
        return found

    def _figures(self, name: str, value: float, higher: bool) -> dict[str, float]:
        worse = min if higher else max
        first = self._first.setdefault(name, value)
        worst = self._worst[name] = worse(self._worst.get(name, value), value)
        return {name: value, f"{name}/worst": worst, f"{name}/dip": abs(first - worst)}

    def state_dict(self) -> dict[str, Any]:
        """The first and the worst value of each metric."""
        return {"first": dict(self._first), "worst": dict(self._worst)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._first, self._worst = dict(state["first"]), dict(state["worst"])
