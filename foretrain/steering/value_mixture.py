"""Draw more from domains whose text does something for the feedback."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._by_value import ByValue

if TYPE_CHECKING:
    from foretrain.context import Context

_MEMORY = 0.9
"""Share of the running mean of |value| kept at each measurement: about the last ten."""

_ROUNDING = 1 - 1e-12
"""A share that is below its floor by less was rounded there."""


class ValueMixture(ByValue):
    """Domain weights move by exp(rate * z), z the mean value of a domain's tokens against that of all domains.

    The value of a domain is the mean over its loss tokens in some rows of the batch, and over its last `window`
    measurements. z is its distance to the mean of all domains (by the weights in force), over a running mean of
    |value|. Value has the unit of a gradient's length, which changes with the model, the feedback and the stage of
    training; divided by its own size, z is a relative difference, and `rate` has no unit: at 0.1, a domain worth twice
    the mean gains about a tenth per measurement. The spread between domains would be no such size: it vanishes where
    all are worth the same, and would turn noise into full steps.

    It starts from the weights that come in (the recipe's, or an earlier mixer's) and multiplies them. Domains that no
    measured row was from keep their last value. Weights act from the stream's lag on.

    Figures: `DOMAIN/value` of a measurement, `scale` (the running mean); the weights are `domain/NAME/weight`.
    """

    kind: Literal["value_mixture"] = "value_mixture"
    facts: ClassVar[Facts] = Facts(
        answers="mix: which domains lower the feedback loss?",
        overhead="a feedback gradient, a forward pass of some rows and one of its last blocks, in one of `every` steps",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"rate": 0.0}

    rate: Number = Field(0.1, ge=0)
    """How far log weights move per measurement, for a difference in value as large as value itself."""
    window: Count = Field(4, gt=0)
    """Measurements that the value of a domain is the mean of."""
    floor: Number = Field(0.02, ge=0, lt=1)
    """Smallest share of a domain; one that comes in with less keeps that."""
    rows: Number = Field(0.5, gt=0, le=1)
    """Share of the batch's rows that is measured; one row at least of every domain in the batch."""

    _factors: dict[str, float] = PrivateAttr(default_factory=dict)
    _history: dict[str, list[float]] = PrivateAttr(default_factory=dict)
    _scale: list[float] = PrivateAttr(default_factory=lambda: [0.0, 0.0])
    _due: bool = PrivateAttr(False)

    def setup(self, context: Context) -> None:
        """See the base; all factors are 1."""
        super().setup(context)
        self._factors = dict.fromkeys(context.stream.domains, 0.0)
        self._history = {name: [] for name in context.stream.domains}
        self._scale, self._due = [0.0, 0.0], False

    def before_step(self, batch: Batch) -> None:
        """Measure the domains, where it is due."""
        if not self.measures(batch.step):
            return
        domains = self.everywhere(batch, batch["domain"]).long()
        chosen = measured_rows(domains, self.rows, seed_from(self._context.seed, self.kind, batch.step))
        piece = self._mine(batch, chosen)
        found = self.domain_values(piece)
        if found is None:
            return
        for name, value in found.items():
            self._history[name] = [*self._history[name], value][-self.window :]
            self.record(f"{name}/value", value)
        shares = self._context.stream.weights
        total = sum(shares[name] for name in found)
        if total > 0:  # else all rows are of domains that are no longer drawn, and the size stays what it was
            size = sum(shares[name] * abs(value) for name, value in found.items()) / total
            summed, counted = self._scale
            self._scale = [_MEMORY * summed + (1 - _MEMORY) * size, _MEMORY * counted + (1 - _MEMORY)]
        self.record("scale", self.scale)
        self._due = True

    @property
    def scale(self) -> float:
        """The running mean of |value| over domains and measurements; 0 before the first."""
        mean, counted = self._scale
        return mean / counted if counted > 0 else 0.0

    def domain_values(self, piece: Batch) -> dict[str, float] | None:
        """Mean value of the loss tokens of each domain, over all ranks; domains without such tokens are left out.

        None where the feedback failed.
        """
        found = self.values(piece)
        if found is None:
            return None
        values, mask = found.double(), piece["mask"].double()
        numbers = range(len(piece.domains))
        rows = [piece["domain"] == number for number in numbers]
        sums = self._context.group.sum(*(values[own].sum() for own in rows), *(mask[own].sum() for own in rows))
        counted = zip(piece.domains, sums[: len(rows)], sums[len(rows) :], strict=True)
        return {name: total / count for name, total, count in counted if count > 0}

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """The incoming weights times the factors, no share below the floor."""
        if self._due:
            for name, z in self.standings().items():
                self._factors[name] += self.rate * z
            top = max(self._factors.values())  # only ratios count, and none may overflow
            self._factors = {name: factor - top for name, factor in self._factors.items()}
        mixed, raised = floored(weights, {name: math.exp(factor) for name, factor in self._factors.items()}, self.floor)
        if self._due:
            # What the floor gives is kept: a domain that is worth more again rises at once.
            for name in raised:
                self._factors[name] = math.log(mixed[name] / weights[name])
            self._due = False
        return mixed

    def standings(self) -> dict[str, float]:
        """Each domain's value against the mean of all, over the scale; only of domains that were ever measured."""
        means = {name: sum(seen) / len(seen) for name, seen in self._history.items() if seen}
        shares = self._context.stream.weights
        total = sum(shares[name] for name in means)
        if total == 0 or self.scale == 0:
            return {}
        centre = sum(shares[name] * mean for name, mean in means.items()) / total
        return {name: (mean - centre) / self.scale for name, mean in means.items()}

    def _mine(self, batch: Batch, chosen: Tensor) -> Batch:
        """This rank's rows among those chosen, filled up to as many as any rank has by rows that count nothing."""
        world = self._context.group.world
        most = int(chosen.view(world, -1).sum(1).max())
        own = chosen[self.places(batch).to(chosen.device)].nonzero()[:, 0]
        rows = torch.cat([own, own.new_zeros(most - len(own))])
        piece = batch.take(rows.to(batch["mask"].device))
        counts = torch.arange(most, device=piece["mask"].device) < len(own)
        return piece.with_(mask=piece["mask"] & counts[:, None])

    def state_dict(self) -> dict[str, Any]:
        """Log factors and last values of the domains, and the running mean with the share of it that is filled."""
        return {"factors": dict(self._factors), "history": dict(self._history), "scale": list(self._scale)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._factors = dict(state["factors"])
        self._history = {name: list(values) for name, values in state["history"].items()}
        self._scale = list(state["scale"])


def measured_rows(domains: Tensor, share: float, seed: int) -> Tensor:
    """Which rows of a step are looked at: bool [rows], at regular distances, and one of every domain at least.

    Regular distances share them out evenly over ranks, and, as the stream's domains lie evenly, over domains.

    Args:
        domains: int64 [rows], of all ranks.
        share: of the rows.
        seed: decides where the first one lies.
    """
    rows = len(domains)
    places = (torch.arange(rows + 1, dtype=torch.float64) + seed % rows) * share
    chosen = places[1:].floor() > places[:-1].floor()
    for number in domains.unique().tolist():
        own = (domains == number).nonzero()[:, 0].cpu()
        if not bool(chosen[own].any()):
            chosen[own[seed % len(own)]] = True
    return chosen.to(domains.device)


def floored(
    weights: Mapping[str, float], factors: Mapping[str, float], floor: float
) -> tuple[dict[str, float], list[str]]:
    """Weights times factors, with no domain's share below the floor, or below what it comes in with if that is less.

    Returns:
        The new weights, on the scale of `weights * factors`; and the domains that were raised to their floor. The
        others keep their proportions.
    """
    mixed = {name: weight * factors[name] for name, weight in weights.items()}
    incoming = math.fsum(weights.values())
    least = {name: min(floor, weight / incoming) for name, weight in weights.items()}
    raised: list[str] = []
    while True:
        rest = math.fsum(weight for name, weight in mixed.items() if name not in raised)
        # The sum of all weights once those raised have their floor and the rest is as it is.
        total = rest / (1 - math.fsum(least[name] for name in raised)) if raised else rest
        low = [
            name for name, weight in mixed.items() if name not in raised and weight < least[name] * total * _ROUNDING
        ]
        if not low:
            break
        raised += low
    return {name: least[name] * total if name in raised else weight for name, weight in mixed.items()}, raised
