"""Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from foretrain.models.roles import Role
from foretrain.optim.base import Optimizer, grouped
from foretrain.parts import Facts
from foretrain.section import Number


class AdamW(Optimizer):
    """AdamW in torch's fused form: w <- w - lr * (m / (sqrt(v) + eps) + weight_decay * w), m and v without their bias.

    Weight decay acts on matrices alone: norm scales and biases have no direction to shrink towards, and the rows of an
    embedding that a batch does not hold would shrink all the same.
    """

    kind: Literal["adamw"] = "adamw"
    beta1: Number = Field(0.9, ge=0, lt=1)
    """Share of the running mean of gradients kept at each step."""
    beta2: Number = Field(0.95, ge=0, lt=1)
    """Share of the running mean of squared gradients kept at each step."""
    eps: Number = Field(1e-8, gt=0)
    """Added to the root of the second moment."""
    weight_decay: Number = Field(0.1, ge=0)
    """Decoupled weight decay, times the learning rate at each step; usual: 0 to 0.3."""
    decay_embeddings: bool = False
    """Whether embeddings and an output layer of its own decay too."""
    facts: ClassVar[Facts] = Facts(
        paper="Decoupled Weight Decay Regularization",
        arxiv="1711.05101",
        year=2017,
        answers="how does a gradient become a step? scaled by its own recent size",
        overhead="two numbers per parameter",
    )

    def build(self, parameters: dict[str, nn.Parameter], roles: dict[str, Role]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            grouped(parameters, roles, self._settings),
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            fused=True,
        )

    def _settings(self, role: Role) -> dict[str, Any]:
        decays = role.kind == "matrix" or (self.decay_embeddings and role.kind in ("embedding", "head"))
        return {
            "name": "decayed" if decays else "plain",
            "peak_lr": self.lr,
            "weight_decay": self.weight_decay if decays else 0.0,
        }
