"""How well the model does on a classification of texts that all of it is trained for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from foretrain.parts import Facts
from foretrain.tasks._finetuning import Example
from foretrain.tasks._finetuning_task import FineTuningTask
from foretrain.tasks._labelled import Labelled, LabelledTask
from foretrain.tasks.base import Evaluated
from foretrain.tasks.likelihood import start


class Finetune(LabelledTask, FineTuningTask[Labelled]):
    """Fine-tuning for classification: all weights and a linear layer on the mean of a text's last hidden states.

    The text is read both ways by any model (bidirectional attention, also of a decoder), cut at the context. Of the
    items that teach, a share chooses among the learning rates; the others train, by AdamW without weight decay and with
    gradients clipped at 1. The model itself stays as it is.

    Metrics of the items that judge, each a mean over seeds at the chosen rate: `accuracy`; `loss` (cross-entropy, in
    nats); and `spread`, the accuracy of the best rate minus that of the worst: how much the choice matters.
    """

    kind: Literal["finetune"] = "finetune"
    facts: ClassVar[Facts] = Facts(
        paper="Should We Still Pretrain Encoders with Masked Language Modeling?",
        arxiv="2507.00994",
        year=2025,
        answers="how well is a classification of texts learned from few labels?",
    )

    def labels_of(self, item: Labelled) -> Sequence[str]:
        """The one label of a text."""
        return (item.right,)

    def examples(self, subject: Evaluated, items: Sequence[Labelled], names: Sequence[str]) -> list[Example]:
        """The texts, cut at the context."""
        encoded = subject.tokenizer.encode([item.given for item in items])
        return [
            Example((ids or [start(subject.tokenizer)])[: subject.context], (names.index(item.right),))
            for ids, item in zip(encoded, items, strict=True)
        ]
