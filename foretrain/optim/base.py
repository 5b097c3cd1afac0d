"""Optimizer: how gradients, decided by the step, move the parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.distributed.tensor import DTensor

from foretrain.models.roles import Role
from foretrain.parts import Part
from foretrain.section import Number


class Optimizer(Part):
    """Builds a `torch.optim.Optimizer` over named parameters with known roles.

    The trainer sets `group["lr"] = group["peak_lr"] * schedule.factor(step, total)` before each step, so parameter
    groups carry their own `peak_lr` and keep their ratio to one another. Each group also carries a `name`, and
    `param_names`, the names of its parameters.
    """

    axis: ClassVar[str] = "optimizer"

    lr: Number = Field(1e-3, gt=0)
    """Peak learning rate."""

    @abstractmethod
    def build(self, parameters: dict[str, nn.Parameter], roles: dict[str, Role]) -> torch.optim.Optimizer:
        """The optimizer over `parameters`; `roles` has the same names."""

    def moments(self, role: Role) -> int:
        """How many numbers (fp32) it keeps per number of a parameter with this role."""
        return 2


def grouped(
    parameters: Mapping[str, nn.Parameter], roles: Mapping[str, Role], settings: Callable[[Role], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Parameter groups for `torch.optim`: parameters whose role has the same settings (a `name` among them) together.

    Sharded and whole parameters never share a group: fused kernels take either kind, not both at once.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        chosen = settings(roles[name])
        key = (chosen["name"], isinstance(parameter, DTensor))
        groups.setdefault(key, {"params": [], **chosen})["params"].append((name, parameter))
    return list(groups.values())
