"""Optimizer: how gradients, decided by the step, move the parameters."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field

from foretrain.models.roles import Role
from foretrain.parts import Part
from foretrain.section import Number


class Optimizer(Part):
    """Builds a `torch.optim.Optimizer` over named parameters with known roles.

    The trainer sets `group["lr"] = group["peak_lr"] * schedule.factor(step, total)` before each step, so parameter
    groups carry their own `peak_lr` and keep their ratio to one another.
    """

    axis: ClassVar[str] = "optimizer"

    lr: Number = Field(1e-3, gt=0)
    """Peak learning rate."""

    @abstractmethod
    def build(self, parameters: dict[str, torch.nn.Parameter], roles: dict[str, Role]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; `roles` has the same names."""
