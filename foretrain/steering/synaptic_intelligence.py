"""Synaptic intelligence: weights are held by what their movement did for the loss of earlier stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr

from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.steering._anchored import Anchored
from foretrain.steering.base import Gradient
from foretrain.vectors import Vector

if TYPE_CHECKING:
    from foretrain.context import Context


class SynapticIntelligence(Anchored):
    """SI: in later stages the loss is `loss + strength * sum_i O_i (w_i - a_i)^2`, a the weights the last stage left.

    Along a stage every weight sums up the decrease of the loss that its own movement brought, to first order: the path
    integral `p_i = sum_t -g_i(t) (w_i(t+1) - w_i(t))`, g the step's gradient without the penalty and before clipping.
    When the stage ends, O_i grows by `max(p_i, 0) / ((w_i - a_i)^2 + damping)`, with the a of that stage's beginning. A
    negative integral is counted as none (ours): it would push the weight away from the anchor without bound.

    A step that the guard skips moves nothing and adds nothing. Listed first it sees the gradient that the other update
    parts have made; below a part that only ever asks for groups of rows it would see none, which it warns of. In place
    of EWC's backward passes at the end of each stage it keeps five copies of the weights, two of them only in a step.
    """

    kind: Literal["synaptic_intelligence"] = "synaptic_intelligence"
    facts: ClassVar[Facts] = Facts(
        paper="Continual Learning Through Synaptic Intelligence",
        arxiv="1703.04200",
        year=2017,
        answers="update: how do weights that did much for earlier stages stay where they are?",
        overhead="none in passes; five copies of the weights",
    )

    strength: Number = Field(10.0, ge=0)
    """Weight of the penalty."""
    damping: Number = Field(0.1, gt=0)
    """What is added to the squared movement of a weight: it bounds the importance of those that hardly moved."""

    _path: Vector = PrivateAttr(default_factory=dict)
    _step: tuple[Vector, Vector] | None = PrivateAttr(None)

    def _begin(self, weights: Vector) -> None:
        self._path = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        if not self._anchor:
            self._add(self._path, weights)

    def _take_in(self, fresh: Vector, weights: Vector) -> None:
        self._add(fresh, weights)

    def setup(self, context: Context) -> None:
        """See the base.

        Raises:
            RequestError: the run has one stage, so there is none to protect.
        """
        super().setup(context)
        self.refuse_one_stage()

    def _of_stage(self, step: int, weights: Vector) -> Vector | None:
        if not self._path:
            return None
        return {
            name: path.clamp_min(0.0) / ((weights[name] - self._anchor[name]).square() + self.damping)
            for name, path in self._path.items()
        }

    def _see(self, gradient: Gradient) -> None:
        self._step = (
            {name: tensor.detach().clone() for name, tensor in gradient.items()},
            {name: weight.clone() for name, weight in self._weights().items() if name in gradient},
        )

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Add what this step's movement did for the loss."""
        if self._step is None:
            self._context.warn(
                f"steering '{self.kind}' saw no gradient of a whole step, since an update part above it asks for other "
                "ones; list it first."
            )
            return
        gradient, before = self._step
        self._step = None
        if step >= self._context.timeline.at(step).branch:
            return  # what moves there is put back before the next stage
        weights = self._weights()
        for name, tensor in gradient.items():
            self._path[name] -= tensor * (weights[name] - before[name])

    def state_dict(self) -> dict[str, Any]:
        """Importance, anchor and path integral of every weight."""
        return {**super().state_dict(), "path": dict(self._path)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._path = self._cut(state["path"])
