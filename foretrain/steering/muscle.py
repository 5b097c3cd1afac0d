"""Learn a task on a new base model without unlearning what the old one got right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives.base import Targets
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._teaching import Known, Taught, teacher_named

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs


class Muscle(Taught):
    """MUSCLE: tokens that the learner gets wrong are taught by the old model, the others by the new one.

    The learner begins as the new model, tuned to a task, and is trained on the task's data once more. Of each target
    token, with y the label and m = 1 where the learner's likeliest token is not y (at the step's weights, not
    differentiated), the loss is `m KL(old || learner) + (1 - m) KL(new || learner)`. Where it is wrong now it imitates
    the model that it should be compatible with, where it is right it stays the new one. The divergences are over the
    whole vocabulary (`candidates` unset), teacher first, and have the gradient of the cross-entropy to the teacher's
    distribution, which is what is computed and shown as the loss. `temperature` is the teachers' alone; at 1, the
    default, that is the published loss at T = 1.

    A `weight` below 1 leaves a share of the target on the label: an auxiliary cross-entropy, which the paper adds where
    the two models are far apart. Of two equally likely tokens, the label counts as the likeliest. `distillation` by
    either model is what is left with the mask at 1 or 0 everywhere.

    Figures: `wrong`, the share of target tokens that the old model teaches, and `teacher_loss`, the loss of the
    teachers on the tokens that each of them teaches.
    """

    kind: Literal["muscle"] = "muscle"
    facts: ClassVar[Facts] = Facts(
        paper="MUSCLE: A Model Update Strategy for Compatible LLM Evolution",
        arxiv="2407.09435",
        year=2024,
        answers="target: which of an old and a new model says what a token should be?",
        overhead="a forward pass of each teacher (two thirds of a step, where they are of the learner's size), and all "
        "logits of every token",
    )

    old: str
    """The model that the learner should be compatible with: a name of the recipe's `models`."""
    new: str
    """The model whose gains it should keep: a name of the recipe's `models`."""
    weight: Number = Field(1.0, ge=0, le=1)
    """Share of the target that the teachers decide; the rest stays on the true token."""
    candidates: Count | None = Field(None, gt=1)
    """Targets that a token can get, the true one included; unset: the whole vocabulary, as published."""

    _teachers: Any = PrivateAttr(None)
    _wrong: list[Tensor] = PrivateAttr(default_factory=list)

    def setup(self, context: Context) -> None:
        """Read both teachers.

        Raises:
            RequestError: the recipe has no such model, or one has another tokenizer; both are the same.
        """
        super().setup(context)
        if self.old == self.new:
            raise RequestError(
                f"steering '{self.kind}': old and new are the same model, '{self.old}'; for one teacher take "
                "distillation."
            )
        self._teachers = [teacher_named(name, self.kind, context) for name in (self.old, self.new)]

    def before_step(self, batch: Batch) -> None:
        super().before_step(batch)
        self._wrong = []

    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        """The targets of the teacher that each token has."""
        wrong = outputs.candidates(batch["labels"], 2)[1]
        taught_by_old = wrong[..., 0] < wrong[..., 1]
        old, new = (teacher.outputs(batch).candidates(batch["labels"], self.candidates) for teacher in self._teachers)
        chosen = taught_by_old[..., None]
        self._wrong.append(torch.stack([(taught_by_old & batch["mask"]).sum(), batch["mask"].sum()]))
        found: Known = (torch.where(chosen, old[0], new[0]), torch.where(chosen, old[1], new[1]))
        return self.heard(found, batch)

    def known(self, batch: Batch) -> Known | None:
        """Nothing is known without the learner's own outputs."""
        return None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Record how many tokens the old model taught."""
        super().after_step(step)
        if self._wrong:
            wrong, count = self._context.group.sum(*torch.stack(self._wrong).sum(0).double())
            self._context.record(f"{self.kind}/wrong", wrong / max(count, 1.0))
