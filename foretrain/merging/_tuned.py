"""What merges share that are made of task vectors: a base, and models that were tuned from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foretrain.errors import RequestError
from foretrain.merging.arithmetic import WeightArithmetic
from foretrain.merging.vectors import TaskVectors
from foretrain.merging.weights import Weights, open_weights, refuse_other_network
from foretrain.section import ModelPath

if TYPE_CHECKING:
    from foretrain.recipe import Recipe


class OfTaskVectors(WeightArithmetic):
    """A merge of task vectors: those of the runs, and those of the `tuned` models, in this order."""

    base: ModelPath
    """The model that all were tuned from: its folder (a run's own, or an exported one), or `product:NAME` in a
    study."""
    tuned: list[ModelPath] = []
    """Models that were tuned from it, likewise, or LoRA adapters of it that PEFT saved."""
    runs: bool = True
    """Whether the runs that are merged were tuned from it too; off where they are there only for what judges."""

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        """See that the models are there, and are one network over the same ids.

        Raises:
            RequestError: they are not.
        """
        refuse_other_network(self._named())

    def vectors(self, runs: Sequence[Weights]) -> TaskVectors:
        """The task vectors.

        Raises:
            RequestError: the models are not of one network, or there is none but the base.
        """
        base, *tuned = self._named()
        found = [*(runs if self.runs else []), *tuned]
        if not found:
            raise RequestError(f"merge '{self.kind}': there is no tuned model; name one under `tuned`, or merge runs.")
        return TaskVectors(base, found)

    def _named(self) -> list[Weights]:
        base = open_weights("base", self.base)
        return [base, *(open_weights("tuned", path, base) for path in self.tuned)]
