"""What regularisers of continual training share: past stages hold the weights where they matter, by a quadratic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import PrivateAttr
from torch import Tensor
from torch.distributed.tensor import DTensor

from foretrain.batch import Batch
from foretrain.distributed import like
from foretrain.errors import RequestError
from foretrain.section import Number
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.vectors import Vector

if TYPE_CHECKING:
    from foretrain.context import Context

_TINY = 1e-38


class Anchored(Steering):
    """Adds the gradient of `strength * sum_i importance_i (w_i - anchor_i)^2` to that of the step.

    A subclass says what a stage that has ended adds to the importance (`_of_stage`), and whether the anchor is the last
    stage's weights or belongs to all past stages. Any number of separate quadratics over the same weights is one
    quadratic, up to a constant: its importance is their sum, and its anchor the mean of their anchors, weighted by
    importance. So the memory is that of one stage however many there were, and nothing is approximated by it.
    """

    neutral: ClassVar[dict[str, Any] | None] = {"strength": 0.0}

    strength: Number

    _context: Any = PrivateAttr(None)
    _importance: Vector = PrivateAttr(default_factory=dict)
    _anchor: Vector = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """Keep what is asked for later."""
        self._context = context

    def refuse_one_stage(self) -> None:
        """See that there is something to protect.

        Raises:
            RequestError: the run has one stage.
        """
        if len(self._context.timeline.stages) < 2:
            raise RequestError(
                f"steering '{self.kind}' protects what earlier stages learned, and this recipe has no second stage; "
                "write the stages under `stages:` (a name, its share of the budget and its domains each), or take the "
                "part out."
            )

    def before_step(self, batch: Batch) -> None:
        """At the first step of a stage: take in the one that ended, at the weights it left to this one."""
        if batch.step != self._context.timeline.at(batch.step).first:
            return
        weights = self._weights()
        if (fresh := self._of_stage(batch.step, weights)) is not None:
            self._take_in(fresh, weights)
        self._begin(weights)

    @abstractmethod
    def _of_stage(self, step: int, weights: Vector) -> Vector | None:
        """The importance of every weight for the stage that ended before `step`; None where there was none."""

    @abstractmethod
    def _take_in(self, fresh: Vector, weights: Vector) -> None:
        """Add a stage's importance to what there was."""

    @abstractmethod
    def _begin(self, weights: Vector) -> None:
        """A stage begins."""

    def _add(self, fresh: Vector, weights: Vector, kept: float = 1.0, own_anchors: bool = False) -> None:
        """Importance is `kept` times what there was, plus the fresh; the anchor as the class says."""
        for name, weight in weights.items():
            before = self._importance[name] * kept if name in self._importance else torch.zeros_like(weight)
            total = before + fresh[name]
            anchor = weight.clone()
            if own_anchors and name in self._anchor:
                anchor += (self._anchor[name] - weight) * (before / total.clamp_min(_TINY))
            self._importance[name], self._anchor[name] = total, anchor

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        """The gradient, and that of the penalty at the same weights."""
        found = of(group, at)
        plain = group is None and at is None
        if plain:
            self._see(found)
        weights = {**self._weights(), **(at or {})}
        total: Tensor | float = 0.0
        for name, importance in self._importance.items():
            if name in found:
                away = weights[name] - self._anchor[name]
                pull = importance * away
                found[name].add_(pull, alpha=2 * self.strength)
                part = (pull * away).sum()
                total = total + (part.full_tensor() if isinstance(part, DTensor) else part)
        if plain:
            self._context.record(f"{self.kind}/penalty", self.strength * float(total))
        return found

    def _see(self, gradient: Gradient) -> None:
        """What the step's gradient is without the penalty."""

    def _weights(self) -> Vector:
        return {name: weight.detach() for name, weight in self._context.weights.items()}

    def state_dict(self) -> dict[str, Any]:
        """Importance and anchor of every weight."""
        return {"importance": dict(self._importance), "anchor": dict(self._anchor)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._importance, self._anchor = self._cut(state["importance"]), self._cut(state["anchor"])

    def _cut(self, vector: Mapping[str, Tensor]) -> Vector:
        """A vector of whole tensors, each cut as its weight is over the ranks."""
        weights = self._weights()
        return {name: like(tensor, weights[name]).clone() for name, tensor in vector.items()}
