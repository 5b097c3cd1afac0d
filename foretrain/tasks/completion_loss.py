"""How well the model predicts what should follow a prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.tasks.base import Evaluated, Measured
from foretrain.tasks.items import Item, LikelihoodTask, Wording, load
from foretrain.tasks.statistics import mean, proportion
from foretrain.wording import wording_of


class CompletionLoss(LikelihoodTask):
    """Loss on completions given prompts.

    Metrics: `loss` (nats per token of the completions), `bits_per_byte` (the same in bits per UTF-8 byte, which models
    with other tokenizers can be compared on), `accuracy` (share of items all of whose completion's tokens are the most
    likely ones, as greedy decoding would give them), `token_accuracy` (share of the tokens).
    """

    kind: Literal["completion_loss"] = "completion_loss"
    facts: ClassVar[Facts] = Facts(answers="how well are the right completions predicted?")
    measures: ClassVar[Mapping[str, bool] | None] = {
        "loss": False,
        "bits_per_byte": False,
        "accuracy": True,
        "token_accuracy": True,
    }

    prompt: Wording | None = None
    """Field with what is given, or a template such as `Question: {question}`; unset for whole documents."""
    completion: Wording = "text"
    """Field with what should be predicted, or a template."""

    def make(self, fields: Mapping[str, Any], place: str) -> Item:
        """The item of one record."""
        completion = wording_of(self.completion, fields, place)
        if not completion:
            raise RequestError(f"{place}: the completion ({self.completion}) is empty, so there is nothing to predict.")
        if self.prompt is None:
            return Item("", completion)
        return Item(wording_of(self.prompt, fields, place) + self.separator, completion)

    def items(self) -> list[Item]:
        """Every item, in order."""
        return load(self.path, self.make, self.limit, options=self.options, where=self.where)

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        items = self.items()
        before = self.examples(items)
        found = self.likelihoods(subject, [(before + item.given, item.right) for item in items])
        cut = sum(one.truncated for one in found)
        nats = [-one.log for one in found]
        # The separator's white space is predicted with the completion, so its bytes count too.
        sizes = [len((item.given[len(item.given.rstrip()) :] + item.right).encode()) for item in items]
        return {
            "loss": mean(nats, [one.tokens for one in found], higher_is_better=False, truncated=cut),
            "bits_per_byte": mean([n / math.log(2) for n in nats], sizes, higher_is_better=False, truncated=cut),
            "accuracy": proportion([one.greedy for one in found], truncated=cut),
            "token_accuracy": mean(
                [one.hits for one in found], [one.tokens for one in found], higher_is_better=True, truncated=cut
            ),
        }
