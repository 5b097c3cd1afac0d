"""Steering: what is decided online, each step, by one class with hooks that all do nothing by default.

A steering part answers one of four questions. *mix*: what data next? *target*: what should be predicted? *weigh*: how
much does each loss count? *update*: how does a gradient become a step? Several parts may run together; the order of
`steering:` in the recipe is the order in which they act.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.objectives.base import Targets
from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs
    from foretrain.pictures import Picture

Gradient = dict[str, Tensor]
"""Gradient of the frozen problem by parameter name, float32, of all ranks' rows (this rank's shard of it)."""


class GradientOf(Protocol):
    """The frozen problem of one step: its gradient, for any rows and at any weights."""

    def __call__(self, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None) -> Gradient:
        """The gradient over `group` (rows of this rank; all by default) at weights `at` (today's by default)."""


def overrides(part: Part, hook: str) -> bool:
    """Whether a part has its own version of a hook of `Steering`."""
    return getattr(type(part), hook) is not getattr(Steering, hook)


class Steering(Part):
    """Base of all steering parts; override the hooks the method needs.

    Targets, weights and views are decided at today's weights, then frozen, then differentiated, then applied. A part
    that needs the losses of the whole batch before the backward lists `batch_losses` in its facts' `needs`.
    """

    axis: ClassVar[str] = "steering"

    def setup(self, context: Context) -> None:
        """Create private state: called once, after the model is built and before a checkpoint is loaded."""

    def replace(self, batch: Batch) -> Batch:
        """Put other data in the place of what the stream gave; called once a step, before the objective prepares it.

        Pure in (seed, position), with rows and lengths as they were: inputs, labels and masks follow from what is
        returned, as they would from the stream's own data.
        """
        return batch

    def before_step(self, batch: Batch) -> None:
        """Look at the prepared batch of this rank before anything is computed on it; the place of a meta step.

        All parts come to this before any of them changes what the model sees. The weights are those of the step, and
        gradients that are taken here (`Learner.gradient_of`) leave the step's own alone.
        """

    def view(self, batch: Batch) -> Batch:
        """Change what the model sees (masks, crops); called once a step on the prepared batch."""
        return batch

    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        """Soft targets from detached outputs, or None to leave the labels."""
        return None

    def weigh(self, losses: Tensor, batch: Batch) -> Tensor | None:
        """Weights that multiply the losses [rows, length] (broadcastable), or None.

        `losses` are detached. With `batch_losses` in `needs` they are those of the whole batch of this rank; else those
        of one micro-batch. Weights should have mask-weighted mean 1 over the whole global batch.
        """
        return None

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        """The gradient handed to the optimizer: of the frozen problem, here or at weights looked ahead to.

        Several update parts nest: `of` is the problem as the later parts see it, and an earlier part may ask this one
        for a `group` of rows or for other weights. A gradient is valid until `of` is called again: clone what is kept.
        """
        return of(group, at)

    def step_kind(self, step: int) -> str:
        """The kind of step `step` (0-based) is for this part, where kinds differ in cost; pure in (seed, step)."""
        return ""

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """After the optimizer moved the weights (averaging, interpolation, a designer's own update)."""

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """New domain weights from the current ones; they act from a fixed lag on.

        Args:
            weights: relative weight of every domain, from the stage and the parts listed before.
            step: after which step this is decided; 0 also for what the first steps have, before anything is measured.
        """
        return weights

    def picture(self, batch: Batch) -> Picture | None:
        """What the part shows of itself in the report, on a few prepared rows of validation text; None: nothing.

        Called once at the end of the run, on all ranks, in eval mode.
        """
        return None
