"""Learn from a teacher's distributions that were made once for the whole corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.objectives.causal_lm import CausalLM
from foretrain.parts import Facts
from foretrain.section import Count
from foretrain.steering._taught_tokens import TaughtTokens, taught_tokens
from foretrain.steering._teaching import Known, TaughtByModel, vocabulary_of

if TYPE_CHECKING:
    from foretrain.context import Context


class OfflineDistillation(TaughtByModel):
    """Distillation whose teacher has read the training tokens beforehand, all of them and each once.

    Before the first step, the teacher goes over every domain's training tokens in windows of the run's length that
    overlap by half: each token is predicted from at least half a window of context, which the learner has not got at
    the beginning of its own windows. Its `candidates` likeliest tokens are kept in the cache by the content of the
    tokens and of the teacher (4 bytes each; 8 from 65,537 ids on), so that other seeds, arms and runs find them made.
    In the run a row's place in its set is looked up, and the teacher costs nothing.

    A row that is not what the teacher read there (other parts put something else into it) has its labels for targets.

    This pays where tokens are read several times, or by several runs; where a run reads a small part of its corpus
    once, `distillation` asks the teacher about less.

    Figures: see `Taught`; `known`, the share of the step's rows that the teacher read; and once, with the first step,
    `one_off_flops`: what the teacher's passes cost, whenever they were made.
    """

    kind: Literal["offline_distillation"] = "offline_distillation"
    facts: ClassVar[Facts] = Facts(
        paper="Distilling the Knowledge in a Neural Network",
        arxiv="1503.02531",
        year=2015,
        answers="target: what did a trained model hold for likely next, when it was asked once?",
        overhead="none in the run; before it, two forward passes of the teacher over all training tokens",
    )

    candidates: Count | None = Field(16, gt=1)
    """Targets that a token can get, the true one included: what is kept of each token; unset: the whole vocabulary."""

    _choices: int = PrivateAttr(0)
    _tables: dict[str, TaughtTokens] = PrivateAttr(default_factory=dict)
    _rows: list[int] = PrivateAttr(default_factory=lambda: [0, 0])

    def setup(self, context: Context) -> None:
        """Read the teacher, and let it read the training tokens where it has not yet.

        Raises:
            RequestError: the objective does not predict each token from those before; see the base.
        """
        if not isinstance(context.objective, CausalLM):
            raise RequestError(
                f"steering 'offline_distillation' knows what a teacher expects after the tokens before, and objective "
                f"'{context.objective.kind}' predicts something else; take 'distillation', which asks at every step."
            )
        super().setup(context)
        content = context.recipe.models[self.model].content()
        self._choices = self.candidates or vocabulary_of(context)
        self._tables = {
            name: taught_tokens(tokens, self._teacher, content, self._choices, context)
            for name, tokens in context.stream.sets.items()
        }

    def known(self, batch: Batch) -> Known:
        """The teacher's candidates; a row that it did not read has its label alone."""
        labels, inputs = batch["labels"].cpu(), batch["inputs"].cpu()
        ids = labels.new_full((*labels.shape, self._choices), -1)
        known = torch.full(ids.shape, -torch.inf)
        ids[..., 0], known[..., 0] = labels, 0.0
        for domain in batch["domain"].unique().tolist():
            rows = (batch["domain"] == domain).nonzero()[:, 0].cpu()
            found = self._tables[batch.domains[domain]].rows(batch["start"].cpu()[rows], labels.shape[1] + 1)
            # The first candidate of every place is the token that stands there.
            read = (found[0][..., 0] == torch.cat([inputs[rows, :1], labels[rows]], 1)).all(1)
            ids[rows[read]], known[rows[read]] = found[0][read, 1:], found[1][read, 1:]
            self._rows[0] += int(read.sum())
        self._rows[1] += batch.rows
        return ids.to(batch["labels"].device), known.to(batch["labels"].device)

    def before_step(self, batch: Batch) -> None:
        super().before_step(batch)
        self._rows = [0, 0]
        if batch.step == 0:
            self._context.record(f"{self.kind}/one_off_flops", sum(table.flops for table in self._tables.values()))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Record the teacher's loss, and how many rows it knew."""
        super().after_step(step)
        known, rows = self._context.group.sum(*self._rows)
        self._context.record(f"{self.kind}/known", known / max(rows, 1.0))
