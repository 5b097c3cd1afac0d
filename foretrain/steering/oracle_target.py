"""A reference: the target of highest value in closed form, without a designer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.models.roles import select
from foretrain.objectives.base import Targets
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._candidates import check_candidates, rival_spread
from foretrain.steering.base import Steering
from foretrain.value.measuring import feedback_direction
from foretrain.value.primitive import token_values

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs


class OracleTarget(Steering):
    """`q = (1 - alpha) onehot + alpha (the candidate of highest value)`, found anew at every step.

    The expected value of a target is linear in it, so the best one within reach puts all the weight that may be moved
    on one candidate: what a designer of `v_pretraining` would do that fitted each batch exactly and learned nothing
    across batches. It has no parameters, and measures the value of all candidates at every step.
    """

    modality: ClassVar[str] = "text"
    kind: Literal["oracle_target"] = "oracle_target"
    facts: ClassVar[Facts] = Facts(
        paper="Value-Based Pre-Training with Downstream Feedback",
        arxiv="2601.22108",
        year=2026,
        answers="target: reference for v_pretraining, the candidate of highest value in closed form",
        overhead="a gradient on the feedback, a forward pass and two of the last blocks, at every step",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}

    feedback: str
    """The feedback set."""
    candidates: Count = Field(16, gt=1)
    """Targets that a token can get, the true one included."""
    alpha: Number = Field(0.5, ge=0, le=1)
    """Weight of the candidate of highest value beside the true token."""
    penalty: Number = Field(0.0, ge=0)
    """Weight is moved only where that is worth more than this many root mean squares of what rivals are worth more or
    less than the true token in the batch."""
    parameters: str = "last:2"
    """The weights that gradients are compared on; see `foretrain.models.roles.select`."""
    items: Count = Field(16, gt=0)
    """Feedback items of a step, over all ranks."""

    _context: Any = PrivateAttr(None)
    _names: list[str] = PrivateAttr(default_factory=list)
    _positions: Tensor | None = PrivateAttr(None)
    _targets: Targets | None = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Read the feedback.

        Raises:
            RequestError: no such feedback or parameters; more candidates than the vocabulary has.
        """
        check_candidates(self.kind, self.candidates, context)
        context.feedback(self.feedback)
        self._context, self._names = context, select(context.roles, self.parameters)

    def before_step(self, batch: Batch) -> None:
        """Find the best target of every token at today's weights."""
        found = feedback_direction(self._context, self.feedback, batch.step, self.items, self._names)
        values = token_values(self._context, batch, found.vector, candidates=self.candidates)
        spread = rival_spread(values.candidates, batch["mask"], self._context.group) if self.penalty else 0.0
        price = self.penalty * spread
        self._positions, self._targets = (
            batch.positions,
            Targets(values.ids, best_target(values.candidates, self.alpha, price)),
        )

    def targets(self, outputs: Outputs, batch: Batch) -> Targets:
        assert self._targets is not None and self._positions is not None
        # Rows of a rank stand in the order of their positions.
        rows = torch.searchsorted(self._positions, batch.positions)
        return Targets(self._targets.ids[rows], self._targets.probabilities[rows])


def best_target(values: Tensor, alpha: float, price: float = 0.0) -> Tensor:
    """Probabilities [rows, length, K] that put `alpha` on the candidate of highest value, the rest on the first.

    Where the gain on the first is not above the price, the first keeps it all.
    """
    best, place = values.max(-1, keepdim=True)
    place = torch.where(best - values[..., :1] > price, place, 0)
    probabilities = torch.zeros_like(values)
    probabilities[..., 0] = 1 - alpha
    return probabilities.scatter_add_(-1, place, torch.full_like(best, alpha))
