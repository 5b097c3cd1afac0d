"""Parametrization: which numbers are trained."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from foretrain.models.surgery import restore
from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.context import Context


class Parametrization(Part):
    """Turns a built model into the one that is trained, and back into the one that is exported.

    `apply` is pure in model and seed and works on a skeleton too, so that numbers, bytes and FLOPs are known before any
    memory is taken. Roles and paths stay those of the plain model: what takes a layer's place is a
    `surgery.RebuiltLinear`, or marked by `roles.stand_in`.

    What is done to the numbers while the run goes on (a mask released, factors made anew) is done by `before_step`, at
    a step that depends on the timeline alone; what it leaves behind is in buffers of the model, in the optimizer's
    state, or goes through `state_dict`, so that a resumed run is exact and look-ahead can be undone.
    """

    axis: ClassVar[str] = "parametrization"

    @abstractmethod
    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        """The model to train; parameters that must not move have `requires_grad` off.

        Raises:
            RequestError: it cannot be applied to this model.
        """

    def merge(self, model: nn.Module) -> nn.Module:
        """The plain model to export, equal in function to the trained one, which may be used up."""
        return restore(model)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what this parametrization leaves of its own (an adapter) beside the exported model; before `merge`."""

    def setup(self, context: Context) -> None:
        """Called once, when the model is on its device and before the optimizer is made.

        Raises:
            RequestError: it does not fit the recipe.
        """

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Scheduled operations on the weights and the optimizer's state (`moving.forget`), before anything is computed.

        Whoever writes to `context.weights` calls `context.learner.refresh()`.
        """

    def rate(self, step: int) -> float:
        """What the learning rate of a step is multiplied by: below 1 while it recovers from an operation."""
        return 1.0

    def project(self) -> None:
        """After each step of the optimizer, those of look-ahead included: bring the weights to where they may be."""

    def step_kind(self, step: int) -> str:
        """Steps that cost otherwise than the others have a name here."""
        return ""

    def unspent(self) -> int:
        """FLOPs of the steps so far that went into products with zeros: hardware that skips them would be spared them.

        Over all ranks. They are told beside the executed ones (`ideal_flops`), never in their place.
        """
        return 0
