"""What tasks of fine-tuning share: items are divided, a grid of rates is trained, and the best one is judged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from foretrain.section import DataPath
from foretrain.tasks._finetuning import Example, Sides, Tuned, Tuning, best, fine_tune, kept_back
from foretrain.tasks.base import Evaluated, Measured, Task
from foretrain.tasks.items import Item
from foretrain.tasks.statistics import mean

I = TypeVar("I", bound=Item)  # noqa: E741


class FineTuningTask(Task, Tuning, Generic[I]):
    """A task that trains a copy of the model; what its items are, and what of them are labels, each kind says."""

    measures: ClassVar[Mapping[str, bool] | None] = {"accuracy": True, "loss": False, "spread": False}

    path: DataPath
    """Where the items are."""

    @abstractmethod
    def items(self) -> tuple[list[I], list[I]]:
        """The items that teach, and those that judge."""

    @abstractmethod
    def labels_of(self, item: I) -> Sequence[str]:
        """The labels of an item."""

    @abstractmethod
    def examples(self, subject: Evaluated, items: Sequence[I], names: Sequence[str]) -> list[Example]:
        """What is read of items, and their labels as numbers in `names`."""

    def check(self) -> None:
        """Read and divide all items."""
        kept_back(self.items()[0], self.choose, self.path)

    def grid(self, subject: Evaluated) -> list[Tuned]:
        """Every learning rate and what came of it.

        Raises:
            RequestError: the items that teach are too few to be divided.
        """
        taught, judge = self.items()
        train, choosing = kept_back(taught, self.choose, self.path)
        names = sorted({label for item in [*taught, *judge] for label in self.labels_of(item)})
        sides = Sides(*(self.examples(subject, items, names) for items in (train, choosing, judge)))
        return fine_tune(subject, sides, len(names), self)

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        return measured(self.grid(subject))


def measured(tuned: Sequence[Tuned]) -> dict[str, Measured]:
    """The metrics of a grid of learning rates."""
    chosen = best(tuned)
    spread = max(each.accuracy for each in tuned) - min(each.accuracy for each in tuned)
    return {
        "accuracy": mean(chosen.right.tolist(), higher_is_better=True),
        "loss": mean(chosen.losses.tolist(), higher_is_better=False),
        "spread": Measured(spread, None, None, len(chosen.right), False),
    }
