"""Take the gradient where the loss is highest near today's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.vectors import added, norm

if TYPE_CHECKING:
    from foretrain.context import Context


class SharpnessAware(Steering):
    """SAM: the gradient of the batch at weights a step of length `rho` up its own gradient, theta + rho * g / |g|.

    The step up is taken on the whole batch over all ranks, its length the Euclidean norm over all parameters, and both
    gradients see the same dropout. Targets and weights of other parts stay those of today's weights. Steps between
    those that look up are plain ones.
    """

    kind: Literal["sharpness_aware"] = "sharpness_aware"
    facts: ClassVar[Facts] = Facts(
        paper="Sharpness-Aware Minimization for Efficiently Improving Generalization",
        arxiv="2010.01412",
        year=2020,
        answers="update: at which weights is the batch differentiated? where the loss is highest nearby",
        overhead="a second gradient in one of `every` steps, and a copy of the weights",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"rho": 0.0}

    rho: Number = Field(0.05, ge=0)
    """Length of the step up, in the weights' own unit; usual: 0.01 to 0.5."""
    every: Count = Field(1, gt=0)
    """One step in so many looks up."""

    _context: Any = PrivateAttr(None)
    _step: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """See the base."""
        self._context = context

    def step_kind(self, step: int) -> str:
        """Steps that look up, and others."""
        return "up" if self._looks(step) else ""

    def before_step(self, batch: Batch) -> None:
        """See which step this is."""
        self._step = batch.step

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        """The gradient at the weights above, in steps that look up."""
        if not self._looks(self._step):
            return of(group, at)
        device = self._context.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            here = of(group, at)
        length = norm(here)
        if length == 0 or not math.isfinite(length):
            return here
        start = {**self._context.weights, **(at or {})}
        return of(group, {**(at or {}), **added(start, here, self.rho / length)})

    def _looks(self, step: int) -> bool:
        return step % self.every == 0
