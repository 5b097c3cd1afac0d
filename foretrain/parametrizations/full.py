"""Train every parameter."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn

from foretrain.parametrizations.base import Parametrization
from foretrain.parts import Facts


class Full(Parametrization):
    """Every parameter of the model is trained."""

    kind: Literal["full"] = "full"
    facts: ClassVar[Facts] = Facts(answers="which numbers are trained? all of them")
    neutral: ClassVar[dict[str, object] | None] = {}

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return model
