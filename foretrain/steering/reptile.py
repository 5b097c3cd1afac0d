"""Go only a part of the way that the optimizer went over some steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.distributed import like
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.spans import Span, interval
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class Reptile(Steering):
    """After every k steps theta <- theta_(t-k) + epsilon * (theta_t - theta_(t-k)), from where the next k steps go on.

    Over the batches in between it raises, to first order, the inner products of their gradients, of old text that is
    replayed and new text alike. The optimizer's moments and the learning rate go on as they were. A small `epsilon` is
    also a lower learning rate: in a short run, with few such steps, it needs one that is tuned anew. Steps after the
    last multiple of k, and those of side branches, stay as the optimizer left them.
    """

    kind: Literal["reptile"] = "reptile"
    facts: ClassVar[Facts] = Facts(
        paper="Revisiting Replay and Gradient Alignment for Continual Pre-Training of Large Language Models",
        arxiv="2508.01908",
        year=2025,
        answers="update: how much of what the optimizer did over some steps is kept?",
        overhead="a copy of the weights, and one pass over them in one of k steps",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"epsilon": 1.0}

    every: Span = Field(0.05, gt=0)
    """k: a share of the run, or a whole number of steps."""
    epsilon: Number = Field(0.1, gt=0, le=1)
    """Share of the way that is kept."""

    _context: Any = PrivateAttr(None)
    _anchor: dict[str, Tensor] = PrivateAttr(default_factory=dict)
    _turns: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """See the base; where the way begins is known at the first step, when other weights may have been loaded."""
        self._context, self._anchor, self._turns = context, {}, 0

    def before_step(self, batch: Batch) -> None:
        """Keep the weights that the run begins with."""
        if not self._anchor:
            self._anchor = {name: weight.detach().clone() for name, weight in self._context.weights.items()}
            self._turns = batch.step // self._k

    @property
    def _k(self) -> int:
        return interval(self.every, self._context.total_steps)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Interpolate, where k steps are done; a bad step that was skipped does not hold it up."""
        if (step + 1) // self._k <= self._turns:
            return
        self._turns = (step + 1) // self._k
        if self._context.timeline.aside(step):
            return  # the run goes on from before it, and from the anchor of then
        for name, weight in self._context.weights.items():
            anchor = self._anchor[name]
            # The way back, so that epsilon 1 leaves every bit of the weights as it is.
            weight.sub_((weight - anchor) * (1 - self.epsilon))
            anchor.copy_(weight)
        self._context.learner.refresh()

    def state_dict(self) -> dict[str, Any]:
        """The weights at the last interpolation, and how many there were."""
        return {"anchor": dict(self._anchor), "turns": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        weights = self._context.weights
        self._anchor = {name: like(value, weights[name].detach()).clone() for name, value in state["anchor"].items()}
        self._turns = state["turns"]
