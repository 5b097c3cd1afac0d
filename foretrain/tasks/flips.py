"""What the model gets wrong that another one got right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import ValidationInfo, field_validator

from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts, find
from foretrain.section import ModelPath
from foretrain.tasks._flips import flips
from foretrain.tasks.base import Evaluated, Measured, Task


class Flips(Task):
    """Negative flips: the share of a task's items that an older model gets right and this one wrong.

    Both are measured on the same items, by any other task that tells of single ones. Where its metric is right or
    wrong, `positive_flips` minus `negative_flips` is the difference of their accuracies, `change`: a model may win ten
    items and lose none, or win twenty and lose ten. For other metrics (losses, overlaps) an item flips where it is
    worse at all, and `change` is the mean gain, in the metric's unit and with more being better.

    Flips have a floor that no update is needed for: two models that differ in their seed alone flip too. Measure it by
    an older model of another seed.

    Metrics: `negative_flips`, `positive_flips`, `change`.
    """

    kind: Literal["flips"] = "flips"
    facts: ClassVar[Facts] = Facts(
        paper="MUSCLE: A Model Update Strategy for Compatible LLM Evolution",
        arxiv="2407.09435",
        year=2024,
        answers="what does the model get wrong that another one got right?",
        overhead="the task twice: once for each model",
    )
    measures: ClassVar[Mapping[str, bool] | None] = {
        "negative_flips": False,
        "positive_flips": True,
        "change": True,
    }

    of: dict[str, Any]
    """The task that both do, as a recipe has it: `{kind: multiple_choice, path: ...}`."""
    against: ModelPath
    """The older model: a folder that `transformers` saved, a run's directory, a hub id, or (in a study)
    `product:NAME`."""
    metric: str = "accuracy"
    """The metric of that task whose items are compared."""

    @field_validator("of")
    @classmethod
    def _a_task(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if not isinstance(value.get("kind"), str):
            raise ValueError("should be a task, such as {kind: multiple_choice, path: items.jsonl}")
        try:
            part = find(Task, value["kind"])  # type: ignore[type-abstract]
        except RequestError as error:
            raise ValueError(str(error)) from error
        return part.model_validate(value, context=info.context).model_dump(mode="json")

    @property
    def task(self) -> Task:
        """The task that both models do."""
        part: type[Task] = find(Task, self.of["kind"])  # type: ignore[type-abstract]
        return part.model_validate(self.of)

    def check(self) -> None:
        task = self.task
        task.check()
        if task.measures is not None and self.metric not in task.measures:
            raise RequestError(f"task 'flips': {unknown_name(f'metric of {task.kind}', self.metric, task.measures)}")

    def texts(self) -> Iterable[str]:
        return self.task.texts()

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        from foretrain.named_models import read_subject

        task = self.task
        old = read_subject(self.against, "task 'flips'", subject.context, getattr(subject, "device", None))
        both = [task.evaluate(each, seed) for each in (old, subject)]
        for found in both:
            if self.metric not in found:
                raise RequestError(f"task 'flips': {unknown_name(f'metric of {task.kind}', self.metric, found)}")
        return flips(both[0][self.metric], both[1][self.metric])
