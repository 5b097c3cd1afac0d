"""How well the model does on a classification of texts that all of it is trained for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from foretrain.parts import Facts
from foretrain.tasks._finetuning import Example, Sides, Tuned, Tuning, best, fine_tune, kept_back
from foretrain.tasks._labelled import Labelled, LabelledTask
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.likelihood import start
from foretrain.tasks.statistics import mean


class Finetune(LabelledTask, Tuning):
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
    measures: ClassVar[Mapping[str, bool] | None] = {"accuracy": True, "loss": False, "spread": False}

    def check(self) -> None:
        """Read and divide all items."""
        kept_back(self.items()[0], self.choose, self.path)

    def grid(self, subject: Evaluated) -> list[Tuned]:
        """Every learning rate and what came of it.

        Raises:
            RequestError: the items that teach are too few to be divided.
        """
        taught, judge = self.items()
        train, choosing = kept_back(taught, self.choose, self.path)
        names = sorted({item.right for item in [*taught, *judge]})
        sides = Sides(*(self._examples(subject, items, names) for items in (train, choosing, judge)))
        return fine_tune(subject, sides, len(names), self)

    def _examples(self, subject: Evaluated, items: Sequence[Labelled], names: list[str]) -> list[Example]:
        encoded = subject.tokenizer.encode([item.given for item in items])
        return [
            Example((ids or [start(subject.tokenizer)])[: subject.context], (names.index(item.right),))
            for ids, item in zip(encoded, items, strict=True)
        ]

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        return measured(self.grid(subject))


def measured(tuned: Sequence[Tuned]) -> dict[str, Measured]:
    """The metrics of a grid of learning rates."""
    chosen = best(tuned)
    spread = max(each.accuracy for each in tuned) - min(each.accuracy for each in tuned)
    return {
        "accuracy": mean(chosen.right.tolist(), higher_is_better=True),
        "loss": mean(chosen.losses.tolist(), higher_is_better=False),
        "spread": Measured(spread, None, None, len(chosen.right), False),
    }
