"""Let tokens, samples or domains count by what they do for the feedback."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._by_value import ByValue
from foretrain.steering._weights import effective_share, tempered

if TYPE_CHECKING:
    from foretrain.context import Context

Level = Literal["token", "sample", "domain"]

_HALVINGS = 40
"""Of the interval that the shift of log weights lies in, some tens wide: what is left is below 1e-10."""


class ValueWeighting(ByValue):
    """Weights grow with value: exp(z / temperature), z the standardised value over the loss tokens of the global batch.

    The value of a sample, or of a domain, is the mean of its loss tokens'. Log weights are shifted so that the mean
    over loss tokens is 1 with every weight between `1 / clip` and `clip`. Where that leaves too small an effective
    sample, (sum w)^2 / (n sum w^2) over the n loss tokens, log weights are shrunk until it is `floor`. Tokens and
    samples are weighed in the steps that measure value, and count 1 in between; domains keep their weights.

    Figures: `ess` (the effective sample, as a share), `power` (how far log weights were shrunk, 1: not at all), and of
    a measurement `mean` and `spread` (mean and standard deviation of the value).
    """

    kind: Literal["value_weighting"] = "value_weighting"
    facts: ClassVar[Facts] = Facts(
        answers="weigh: which tokens, samples or domains lower the feedback loss?",
        overhead="a feedback gradient, a forward pass and two of the last blocks, in one of `every` steps",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"clip": 1.0}

    level: Level = "sample"
    """What gets a weight of its own: a `token`, a `sample` (a row of the batch) or a `domain`."""
    temperature: Number = Field(1.0, gt=0)
    """Standard deviations of value that multiply a weight by e; higher: weights closer to 1."""
    clip: Number = Field(4.0, ge=1)
    """Largest weight, and the inverse of the smallest."""
    floor: Number = Field(0.5, gt=0, le=1)
    """Smallest effective sample size, as a share of the loss tokens."""
    items: Count = Field(8, gt=0)
    """Feedback items of a measurement, over all ranks, drawn anew each time; their gradient is a third of its cost."""

    _scores: dict[str, float] = PrivateAttr(default_factory=dict)
    _weights: Tensor | None = PrivateAttr(None)
    _first: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """See the base; domains start with equal weights."""
        super().setup(context)
        self._scores, self._weights = {}, None

    def before_step(self, batch: Batch) -> None:
        """Measure value, where it is due, and make the weights of this step."""
        self._weights = None
        values = self.values(batch) if self.measures(batch.step) else None
        if values is None and not self._scores:
            return
        mask, domains = self.everywhere(batch, batch["mask"]), self.everywhere(batch, batch["domain"]).long()
        counts = unit_sums(mask, domains, len(batch.domains), self.level)
        scores = torch.zeros_like(counts)
        if values is not None:
            sums = unit_sums(self.everywhere(batch, values), domains, len(batch.domains), self.level)
            scores, mean, spread = standardised(sums / counts.clamp_min(1), counts)
            self.record("mean", mean)
            self.record("spread", spread)
        if self.level == "domain":
            scores = self._kept(scores, torch.zeros_like(counts) if values is None else counts, batch.domains)
        weights, power = weights_of(scores / self.temperature, counts, clip=self.clip, floor=self.floor)
        self.record("ess", effective_share(weights, counts))
        self.record("power", power)
        mine = self.places(batch).to(mask.device)
        self._weights = spread_out(weights, mask, domains, self.level)[mine].float()
        self._first = int(batch.positions[0])

    def weigh(self, losses: Tensor, batch: Batch) -> Tensor | None:
        """The weights of these rows; None in steps without."""
        return None if self._weights is None else self._weights[(batch.positions - self._first).to(losses.device)]

    def _kept(self, scores: Tensor, counts: Tensor, names: Sequence[str]) -> Tensor:
        """Standardised values of all domains: today's of those that were measured, else the last ones."""
        for name, score, count in zip(names, scores.tolist(), counts.tolist(), strict=True):
            if count > 0:
                self._scores[name] = score
        return scores.new_tensor([self._scores.get(name, 0.0) for name in names])

    def state_dict(self) -> dict[str, Any]:
        """Standardised values of the domains, as last measured."""
        return {"scores": dict(self._scores)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._scores = {name: float(score) for name, score in state["scores"].items()}


def unit_sums(tensor: Tensor, domains: Tensor, number: int, level: Level) -> Tensor:
    """Sums of [rows, length] over the tokens of each unit, in the order of tokens, rows or the `number` domains."""
    if level == "token":
        return tensor.flatten()
    if level == "sample":
        return tensor.sum(1)
    return torch.stack([tensor[domains == each].sum() for each in range(number)])


def spread_out(weights: Tensor, mask: Tensor, domains: Tensor, level: Level) -> Tensor:
    """What each unit has, [rows, length] or [rows, 1]."""
    if level == "token":
        return weights.view_as(mask)
    return (weights if level == "sample" else weights[domains])[:, None]


def standardised(values: Tensor, counts: Tensor) -> tuple[Tensor, float, float]:
    """Values less their mean, over their standard deviation; and both. Each counts as often as `counts` says.

    0 where the count is, and where all values are the same.
    """
    total = counts.sum().clamp_min(1)
    mean = (values * counts).sum() / total
    apart = torch.where(counts > 0, values - mean, 0.0)
    spread = ((apart.square() * counts).sum() / total).sqrt()
    return torch.where(spread > 0, apart / spread, 0.0), float(mean), float(spread)


def weights_of(scores: Tensor, counts: Tensor, *, clip: float, floor: float) -> tuple[Tensor, float]:
    """Weights that grow with scores, by `levelled`, and the power in [0, 1] that log weights were shrunk by.

    Args:
        scores: [n] log weights, up to a shift.
        counts: [n] how many loss tokens each stands for.
        clip: largest weight, and the inverse of the smallest.
        floor: smallest effective share.
    """
    return tempered(lambda power: levelled(power * scores, counts, clip), counts, floor)


def levelled(scores: Tensor, counts: Tensor, clip: float) -> Tensor:
    """exp(scores + c) between 1 / clip and clip, with the c at which the mean is 1."""
    width, total = math.log(clip), counts.sum().clamp_min(1)

    def at(shift: Tensor) -> Tensor:
        return (scores + shift).clamp(-width, width).exp()

    low, high = -scores.max() - width, -scores.min() + width
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        over = (at(middle) * counts).sum() > total
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return at(low)
