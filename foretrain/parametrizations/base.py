"""Parametrization: which numbers are trained."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from foretrain.parts import Part


class Parametrization(Part):
    """Turns a built model into the one that is trained, and back into the one that is exported."""

    axis: ClassVar[str] = "parametrization"

    @abstractmethod
    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        """The model to train; parameters that must not move have `requires_grad` off."""

    def merge(self, model: nn.Module) -> nn.Module:
        """The plain model to export, equal in function to the trained one."""
        return model

    def after_step(self, step: int) -> None:
        """Scheduled operations on the parameters (refactorisation, masks), after each optimizer step."""
