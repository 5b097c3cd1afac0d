"""What targets share that a teacher gives: its distribution over a token's candidates, mixed with the label."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives.base import Targets
from foretrain.section import Count, Number
from foretrain.steering._candidates import check_candidates
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.named_models import Reference
    from foretrain.objectives.outputs import Outputs

Known = tuple[Tensor, Tensor]
"""Ids of a token's candidates, int64 [rows, length, K], the true token first; and a teacher's log-probabilities of
them, float32. Of a token that it is not asked about, the others are -1 and not likely at all."""


class Taught(Steering):
    """`q = (1 - w) onehot + w r`, with `r` a teacher's distribution over the true token and its likeliest others.

    `r` is the softmax of the teacher's logits over `temperature`, on these candidates alone; the learner's own logits
    are left as they are.

    Figures: `teacher_loss`, the mean loss of the teacher on the true tokens of the step: where the learner's own falls
    below it, there is little left to be taught.
    """

    modality: ClassVar[str] = "text"
    neutral: ClassVar[dict[str, Any] | None] = {"weight": 0.0}

    weight: Number = Field(0.5, ge=0, le=1)
    """Share `w` of the target that the teacher decides; the rest stays on the true token."""
    temperature: Number = Field(1.0, gt=0)
    """Divides the teacher's logits: above 1, its distribution is flatter."""
    candidates: Count | None = Field(64, gt=1)
    """Targets that a token can get, the true one included; unset: the whole vocabulary."""

    _context: Any = PrivateAttr(None)
    _heard: list[Tensor] = PrivateAttr(default_factory=list)

    def setup(self, context: Context) -> None:
        """See that the model has that many candidates.

        Raises:
            RequestError: it has fewer, or predicts no tokens.
        """
        check_candidates(self.kind, self.candidates or 1, context)
        self._context, self._heard = context, []

    @abstractmethod
    def known(self, batch: Batch) -> Known | None:
        """The teacher's candidates of every token of some rows; None: it teaches nothing in this step."""

    def share(self, step: int) -> float:
        """The teacher's share of the target in a step."""
        return self.weight

    def before_step(self, batch: Batch) -> None:
        self._heard = []

    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        """The mixed targets; the learner's own outputs are not looked at."""
        found = self.known(batch)
        return None if found is None else self.heard(found, batch)

    def heard(self, found: Known, batch: Batch) -> Targets:
        """What a teacher knows of some rows, mixed with their labels; its loss is remembered for the step's figures."""
        losses, mask = -found[1][..., 0], batch["mask"] & (found[0][..., 1] >= 0)
        self._heard.append(torch.stack([(losses * mask).sum(dtype=torch.float64), mask.sum().double()]))
        return self.mixed(found, batch.step)

    def mixed(self, found: Known, step: int) -> Targets:
        """What a teacher knows, mixed with the label."""
        ids, log_probabilities = found
        share = self.share(step)
        probabilities = share * (log_probabilities / self.temperature).softmax(-1)
        probabilities[..., 0] += 1 - share
        return Targets(ids, probabilities)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Record the teacher's loss."""
        if self._heard:
            total, count = self._context.group.sum(*torch.stack(self._heard).sum(0))
            self._context.record(f"{self.kind}/teacher_loss", total / max(count, 1.0))


class TaughtByModel(Taught):
    """Targets by a model that the recipe names."""

    model: str
    """The teacher: a name of the recipe's `models`; where that is a list, an ensemble whose logits are averaged."""

    _teacher: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Read the teacher.

        Raises:
            RequestError: the recipe has no such model, or it has another tokenizer; more candidates than there are ids.
        """
        super().setup(context)
        self._teacher = teacher_named(self.model, self.kind, context)

    def known(self, batch: Batch) -> Known | None:
        found: Known = self._teacher.outputs(batch).candidates(batch["labels"], self.candidates)
        return found


def teacher_named(name: str, kind: str, context: Context) -> Reference:
    """A model of the recipe that tells the same tokens apart as the learner does; `kind` of the steering that asks.

    Raises:
        RequestError: the recipe has none of that name, it has another tokenizer, or another number of ids.
    """
    teacher = context.named(name)
    own = vocabulary_of(context)
    if teacher.vocabulary != own:
        raise RequestError(
            f"steering '{kind}': the model '{name}' tells {teacher.vocabulary} tokens apart and this run's {own}, "
            "though their tokenizer is the same; name one with as many rows in its output layer."
        )
    return teacher


def vocabulary_of(context: Context) -> int:
    """How many tokens the model in training tells apart."""
    config: Any = context.model.config
    return int(config.vocab_size)
