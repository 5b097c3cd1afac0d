"""The direction that value is measured along: the gradient of a feedback loss, at unit length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretrain.vectors import Vector, norm, random_like, unit

if TYPE_CHECKING:
    from foretrain.context import Context

EPS = 1e-8
"""Added to the root of the second moment, as Adam does."""
DAMPING = 1e-2
"""Share of a tensor's root mean square gradient that is added too, so that numbers which were hardly ever moved (the
rows of rare tokens) do not become the whole direction."""


@dataclass(frozen=True)
class Direction:
    """Where the feedback loss rises most steeply.

    Attributes:
        vector: of unit length over the parameters asked for; all zeros where the gradient was not finite.
        loss: mean loss of the feedback items.
        norm: length of the gradient itself, before it was preconditioned.
    """

    vector: Vector
    loss: float
    norm: float

    def random(self, seed: int) -> Direction:
        """A random direction in its place, tensor by tensor in the same proportions; pure in the seed."""
        return replace(self, vector=unit(random_like(self.vector, seed)))


def feedback_direction(
    context: Context, name: str, step: int, items: int, names: Sequence[str], *, precondition: bool = False
) -> Direction:
    """The direction of a feedback set at today's weights, over all ranks; records its loss and gradient norm.

    Args:
        context: of the run.
        name: of the feedback set.
        step: with the run's seed it decides which items are drawn.
        items: drawn over all ranks.
        names: parameters that the direction lies in.
        precondition: divide by the root of Adam's second moment (`preconditioned`): its step moves along
            `P grad(L_t)` with P diagonal, so `< P grad(L_feedback), grad(L_t) >` is what that step does for the
            feedback to first order; the plain direction is exact for gradient descent. Before the optimizer's first
            step, and where it keeps no second moments for all of these parameters, the direction is the plain one.

    A gradient that is not finite is said once in a warning, and is zero: every value along it is 0.
    """
    gradient, loss = context.feedback(name).gradient(step, items, names)
    length = norm(gradient)
    if not (math.isfinite(loss) and math.isfinite(length)):
        context.warn(f"The gradient of the feedback '{name}' was not finite at some steps; nothing was measured there.")
        return Direction({name: torch.zeros_like(part) for name, part in gradient.items()}, loss, length)
    context.record(f"feedback/{name}/loss", loss)
    context.record(f"feedback/{name}/gradient_norm", length)
    moments = context.second_moments() if precondition else {}
    if all(parameter in moments for parameter in names):
        gradient = preconditioned(gradient, moments)
    elif precondition and step > 0:
        context.warn(
            "`precondition` needs an optimizer that keeps second moments (AdamW) of all the parameters that value is "
            f"measured in; {context.recipe.optimizer.kind} does not, so the plain gradient was taken."
        )
    return Direction(unit(gradient), loss, length)


def preconditioned(gradient: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> Vector:
    """A gradient divided, number by number, by `sqrt(v) + EPS + DAMPING * r`, `r` being that tensor's rms `sqrt(v)`.

    Adam has the first two terms. The third bounds what one number gains over others of its tensor to 1 / DAMPING.
    """
    found: Vector = {}
    for name, part in gradient.items():
        root = moments[name].float().sqrt()
        usual = norm({name: root}) / root.numel() ** 0.5
        found[name] = part / (root + (EPS + DAMPING * usual))
    return found
