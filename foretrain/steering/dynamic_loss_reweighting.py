"""Let rows (or tokens) count by their own loss of the moment (arXiv 2502.06733)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.spans import Span, lead
from foretrain.steering._weights import Unit, effective_share, entropy_share, tempered
from foretrain.steering._whole_batch import WholeBatch

if TYPE_CHECKING:
    from foretrain.context import Context

_NARROWEST = 1e-6
"""The range of a batch whose losses are all the same, in nats."""

_TAILS: dict[Unit, float] = {"row": 0.0, "token": 0.01}
"""Share of the units at each end that the range leaves out."""

STRATEGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear_upper": lambda h: (h + 1).clamp(max=1),
    "quadratic": lambda h: 1 - h.square(),
    "extremes": lambda h: h.abs(),
}
"""Scores of losses that are normalised to [-1, 1]."""


class DynamicLossReweighting(WholeBatch):
    """Weights are the softmax of f(h) / temperature over the global batch, h a row's mean loss in the batch's range.

    h goes from -1, the lowest loss of the batch, to 1, the highest (another range than [-1, 1] would only be another
    temperature). f is `min(h + 1, 1)` for `linear_upper`, which takes weight from rows that are known already and gives
    all above the middle of the range the same; `1 - h^2` for `quadratic`, and `|h|` for `extremes`. Weights have mean 1
    over the loss tokens, so that short rows count less, and depend on neither micro-batches nor ranks.

    For tokens the published formula would let two of some thousands set the range: the lowest loss is close to 0 and
    the highest a typing error. There the range leaves out 1 % of the tokens at each end, and what lies outside has h -1
    or 1. With that no weight is more than exp(1 / temperature) times another's at either level. It costs two selections
    of linear time, and one sum of 16 bytes a token over ranks.

    Where the effective sample, (sum w)^2 / (n sum w^2) over the n loss tokens, is smaller than `floor`, log weights are
    shrunk until it is not, which is said once. With a temperature of 0.38 or more the default floor is never reached.

    Figures: `ess` (the effective sample, as a share), `entropy` (exp of the weights' entropy, as a share), `largest`
    (the largest weight; the paper's bound asks for at most 2), `power` (how far log weights were shrunk, 1: not at
    all). The loss that is reported stays unweighted.
    """

    kind: Literal["dynamic_loss_reweighting"] = "dynamic_loss_reweighting"
    facts: ClassVar[Facts] = Facts(
        paper="Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining",
        arxiv="2502.06733",
        year=2025,
        answers="weigh: how much does a row (a token) count, by its own loss?",
        needs=("batch_losses",),
        overhead="next to none where a forward pass holds the batch; else one forward pass more",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"temperature": 1e12}

    strategy: Literal["linear_upper", "quadratic", "extremes"] = "linear_upper"
    """What counts more: rows that are not known yet, rows in the middle of the batch's range, or those at its ends."""
    temperature: Number = Field(0.4, gt=0)
    """Higher: weights closer to 1. The paper has 1.0 for its smallest model and 0.4 for larger ones."""
    level: Unit = "row"
    """What gets a weight of its own: a `row` of the batch, as published, or a `token`."""
    burn_in: Span = Field(0.05, ge=0)
    """Steps at the start without weights: a share of the run, or steps."""
    floor: Number = Field(0.25, gt=0, le=1)
    """Smallest effective sample size, as a share of the loss tokens."""

    _start: int = PrivateAttr(0)

    def setup(self, context: Context) -> None:
        """See the base."""
        super().setup(context)
        self._start = lead(self.burn_in, context.total_steps)

    @torch.no_grad()
    def weigh(self, losses: Tensor, batch: Batch) -> Tensor | None:
        """The weights of these rows; None in the burn-in, and where a loss is not finite (such a step is skipped)."""
        if batch.step < self._start:
            return None
        sums, counts = self._units(losses, batch)
        if not bool(torch.isfinite(sums).all()) or not bool(counts.any()):
            return None
        scores = STRATEGIES[self.strategy](normalised(sums / counts.clamp_min(1), counts, _TAILS[self.level]))
        weights, power = tempered(
            lambda power: softmax(scores * (power / self.temperature), counts), counts, self.floor
        )
        if power < 1:
            self._context.warn(
                f"steering '{self.kind}': a temperature of {self.temperature:g} left an effective sample below `floor` "
                f"({self.floor:g} of the loss tokens), so weights were evened out; `{self.kind}/power` tells how far."
            )
        self.record("ess", effective_share(weights, counts))
        self.record("entropy", entropy_share(weights, counts))
        self.record("largest", float(weights[counts > 0].max()))
        self.record("power", power)
        return weights.view(self._context.stream.rows, -1)[self.places(batch).to(weights.device)].float()

    def _units(self, losses: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of losses, and number of loss tokens, of every unit of all ranks."""
        both = torch.stack([losses.double(), batch["mask"].expand_as(losses).double()], -1)
        # Rows are summed before they travel.
        whole = self.everywhere(batch, both if self.level == "token" else both.sum(1, keepdim=True))
        sums, counts = whole.flatten(0, 1).unbind(-1)
        return sums, counts

    def state_dict(self) -> dict[str, Any]:
        """Where weights begin: an end that is moved does not move it."""
        return {"start": self._start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._start = state["start"]


def normalised(losses: Tensor, counts: Tensor, tail: float) -> Tensor:
    """Losses as [-1, 1]: from the lowest to the highest of those that count, less a share at each end."""
    present = losses[counts > 0]
    left_out = math.floor(tail * (len(present) - 1))
    low = present.kthvalue(left_out + 1).values
    high = present.kthvalue(len(present) - left_out).values
    return ((2 * losses - (high + low)) / (high - low).clamp_min(_NARROWEST)).clamp(-1, 1)


def softmax(scores: Tensor, counts: Tensor) -> Tensor:
    """exp(scores) times the number at which the mean is 1, each as often as counted."""
    raw = (scores - scores.max()).exp()
    return raw * (counts.sum() / (raw * counts).sum())
