"""How surprising a document is to a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from foretrain.corpus.scorers._by_models import ByModels
from foretrain.corpus.scorers._losses import Losses, Unit
from foretrain.parts import Facts


class ModelLoss(ByModels):
    """Mean negative log-likelihood of a document under a named model, in nats per token (the logarithm of perplexity).

    The lowest are the plainest documents to the model, and those it has seen; the highest are noise, and what it has
    yet to learn. Per token the models' tokenizer has a say; per character or byte models of any tokenizer compare.
    """

    kind: Literal["model_loss"] = "model_loss"
    facts: ClassVar[Facts] = Facts(
        paper="When Less is More: Investigating Data Pruning for Pretraining LLMs at Scale",
        arxiv="2309.04564",
        year=2023,
        answers="how good is a document? as little as a model is surprised",
        overhead="a forward pass of the model over the training documents, once",
    )

    model: str
    """Name under `models:`."""
    unit: Unit = "token"
    """What the loss is divided by."""

    def names(self) -> Sequence[str]:
        return [self.model]

    def score(self, losses: Sequence[Losses]) -> float:
        return losses[0].mean(self.unit)
