"""Predict the next token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.models.attention import reading, refuse_deaf
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs, run_model
from foretrain.parts import Facts

if TYPE_CHECKING:
    from foretrain.context import Context


class CausalLM(Objective):
    """Causal language modelling: every token is predicted from those before it in its window.

    Metadata in front of documents is read and not learned. With `documents: separate` attention and positions start
    anew at each document, and the first token of a document is not predicted from the end of the one before it. An
    encoder with rotary positions (`eurobert`) is told to read causally while it is trained so; whoever loads it reads
    both ways again.
    """

    kind: Literal["causal_lm"] = "causal_lm"
    facts: ClassVar[Facts] = Facts(
        paper="Language Models are Unsupervised Multitask Learners",
        year=2019,
        answers="what is predicted? the next token",
    )
    family: ClassVar[Literal["decoder", "encoder", "vision", "any"]] = "decoder"

    def window(self, context_length: int) -> int:
        return context_length + 1

    def prepare(self, batch: Batch) -> Batch:
        tokens = batch["tokens"]
        tensors = {"inputs": tokens[:, :-1], "labels": tokens[:, 1:]}
        mask = (
            batch["valid"][:, 1:].bool() if "valid" in batch else torch.ones_like(tensors["labels"], dtype=torch.bool)
        )
        if "given" in batch:
            mask = mask & ~batch["given"][:, 1:]
        if "segments" in batch:
            segments = batch["segments"]
            mask = mask & (segments[:, 1:] == segments[:, :-1])
            tensors["documents"] = segments[:, :-1]
        return batch.with_(**tensors, mask=mask)

    def setup(self, context: Context) -> None:
        super().setup(context)
        refuse_deaf(context.model, "causal", f"objective '{self.kind}'")

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Loss tokens, where not every token is one."""
        return {"loss_tokens": batch["mask"].sum()} if "documents" in batch or "given" in batch else {}

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        return run_model(model, input_ids=batch["inputs"], **reading(model, "causal", batch))

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        return outputs.token_losses(batch["labels"], batch["mask"], targets)
