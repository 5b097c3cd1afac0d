"""How large the weights are, and how far they have moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import PrivateAttr
from torch import Tensor

from foretrain.parts import Facts
from foretrain.probes.base import Probe

if TYPE_CHECKING:
    from foretrain.context import Context


class WeightNorm(Probe):
    """Euclidean norms of the weights, for each role (embedding, head, matrix, norm, bias) and for all.

    Figures: `ROLE` and `all`; with `moved` also `moved/ROLE` and `moved/all`, the norms of the change since the run
    began, in the same unit.
    """

    kind: Literal["weight_norm"] = "weight_norm"
    facts: ClassVar[Facts] = Facts(
        answers="how large are the weights, and how far have they moved?",
        overhead="one pass over the weights; with `moved` a copy of them in memory and in every checkpoint",
    )

    moved: bool = False
    """Also measure how far the weights are from where the run began (keeps a copy of them)."""

    _start: dict[str, Tensor] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """Keep the weights that the run begins with, if the recipe asks for it."""
        self._start.clear()
        if self.moved:
            self._start.update((name, weight.to("cpu", copy=True)) for name, weight in _weights(context))

    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        squares: dict[str, float] = {}
        for name, weight in _weights(context):
            role = context.roles[name].kind
            figures = {"": weight}
            if self.moved:
                figures["moved/"] = weight - self._start[name].to(weight.device)
            for prefix, tensor in figures.items():
                square = float(tensor.double().square().sum())
                for label in (f"{prefix}{role}", f"{prefix}all"):
                    squares[label] = squares.get(label, 0.0) + square
        return {label: math.sqrt(square) for label, square in sorted(squares.items())}

    def state_dict(self) -> dict[str, Any]:
        """The weights that the run began with."""
        return dict(self._start)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._start.clear()
        self._start.update(state)


def _weights(context: Context) -> Iterator[tuple[str, Tensor]]:
    """Every trained weight in float32, whole even where it is sharded over ranks."""
    with torch.no_grad():
        for name, parameter in context.model.named_parameters():
            if name in context.roles:
                weight = parameter.detach()
                yield name, (weight.full_tensor() if hasattr(weight, "full_tensor") else weight).float()
