"""What parts share that end a run with an average of its weights."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.distributed import like
from foretrain.errors import RequestError
from foretrain.spans import Span, interval
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class Averaging(Steering):
    """A running average of the weights beside the run, which takes their place after the last step.

    Until then nothing of the run is changed by it: steps, evaluations, probes and checkpoints are those of the weights
    in training. The last evaluation, the tasks at the end, the last checkpoint and the exported model are those of the
    average. Snapshots enter at equal distances, counted back from the last step; side branches of stages have none. A
    run that is extended goes on from the average. Where the last step is a bad one that is skipped, the run ends
    without it.
    """

    every: Span = Field(1, gt=0)
    """Distance of snapshots: a share of the run, or a whole number of steps."""

    _context: Any = PrivateAttr(None)
    _mean: dict[str, Tensor] = PrivateAttr(default_factory=dict)
    _taken: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """See the base.

        Raises:
            RequestError: a budget in minutes.
        """
        if context.recipe.budget.minutes is not None:
            raise RequestError(
                f"steering '{self.kind}' puts the average in place after the last step, and a budget in minutes may "
                "move that; give the budget in steps, tokens or flops."
            )
        self._context, self._mean, self._taken = context, {}, 0

    @property
    def distance(self) -> int:
        """Steps from one snapshot to the next."""
        return interval(self.every, self._context.total_steps)

    @abstractmethod
    def wanted(self, left: int) -> bool:
        """Whether the snapshot that is followed by `left` others enters."""

    @abstractmethod
    def weight(self, taken: int) -> float:
        """Weight of the newest of `taken` snapshots in their average; 1 for the first."""

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Take a snapshot where one is due, and put the average in place after the last step."""
        left = self._context.total_steps - 1 - step
        aside = self._context.timeline.aside(step)
        if aside or left % self.distance or not self.wanted(left // self.distance):
            return
        self._taken += 1
        weights = {name: weight.detach() for name, weight in self._context.weights.items()}
        if self._taken == 1:
            self._mean = {name: weight.clone() for name, weight in weights.items()}
        else:
            rest = 1 - self.weight(self._taken)
            # What the average lags behind, so that a weight of 1 gives every bit of the newest.
            self._mean = {name: weight - (weight - self._mean[name]) * rest for name, weight in weights.items()}
        if left == 0:
            for name, weight in weights.items():
                weight.copy_(self._mean[name])
            self._context.learner.refresh()

    def state_dict(self) -> dict[str, Any]:
        """The average, and how many snapshots are in it."""
        return {"mean": dict(self._mean), "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        weights = self._context.weights
        self._mean = {name: like(value, weights[name].detach()).clone() for name, value in state["mean"].items()}
        self._taken = state["taken"]
