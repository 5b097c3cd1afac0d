"""Difference sampling: what a large model finds much likelier than a small one does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from foretrain.corpus.scorers._by_models import ByModels
from foretrain.corpus.scorers._losses import Losses, Unit
from foretrain.errors import RequestError
from foretrain.parts import Facts


class MiniPLM(ByModels):
    """Difference sampling: the mean loss per token under a small reference less that under a large teacher.

    It is the logarithm of the likelihood ratio, per token; keep the `highest`. Patterns that are plain to both, and
    noise that is to neither, have no difference: what is kept is hard and can be learnt. The student is trained on
    what is kept by its own loss, with whatever tokenizer.

    The teacher should be the better of the two on this text, and the reference should not have been trained on what it
    scores. Text that the teacher knows by heart (boilerplate) has a high difference too: look at the top.
    """

    kind: Literal["miniplm"] = "miniplm"
    facts: ClassVar[Facts] = Facts(
        paper="MiniPLM: Knowledge Distillation for Pre-Training Language Models",
        arxiv="2410.17215",
        year=2024,
        answers="how good is a document? as much as a large model likes it better than a small one",
        overhead="a forward pass of both models over the training documents, once",
    )

    teacher: str = "teacher"
    """Name of the large model under `models:`."""
    reference: str = "reference"
    """Name of the small one."""
    unit: Unit = "token"
    """What the losses are divided by; per token, both need one tokenizer."""

    def names(self) -> Sequence[str]:
        return [self.teacher, self.reference]

    def score(self, losses: Sequence[Losses]) -> float:
        teacher, reference = losses
        if self.unit == "token" and teacher.tokenizer != reference.tokenizer:
            raise RequestError(
                f"score: models.{self.teacher} and models.{self.reference} have different tokenizers, so their losses "
                "per token are of different tokens; set `unit: character`, or name models with one tokenizer."
            )
        return reference.mean(self.unit) - teacher.mean(self.unit)
