"""Canaries: random strings that a model can only know by heart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count


class Canaries(Builtin):
    """Sentences such as `The secret number is 482 019 337.`, whose digits are drawn at random; no two are alike.

    The space of secrets is known (ten to the power of `digits`), so that a model's loss on a canary can be ranked among
    those of secrets that were never shown to it: the task `exposure` does. Metadata: `prefix` (the sentence up to
    `is`) and `secret`.
    """

    kind: Literal["canaries"] = "canaries"
    facts: ClassVar[Facts] = Facts(
        paper="The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks",
        arxiv="1802.08232",
        year=2018,
        answers="how much of its training text does a model know by heart?",
    )
    count: Count = Field(20, gt=0)
    """Number of canaries."""
    digits: int = Field(9, ge=1, le=60)
    """Digits of a secret; they are written in groups of three."""
    seed: int = Field(0, ge=0)
    """Another seed gives other secrets."""

    @model_validator(mode="after")
    def _possible(self) -> Canaries:
        if self.count > 10**self.digits // 2:
            raise ValueError(
                f"count ({self.count}) should be at most half of the 10^{self.digits} secrets that there are"
            )
        return self

    def documents(self) -> Iterator[Document]:
        """Every canary."""
        dice = Dice(self.seed, "canaries")
        seen: set[str] = set()
        while len(seen) < self.count:
            secret = "".join(str(dice.below(10)) for _ in range(self.digits))
            if secret in seen:
                continue
            written = " ".join(secret[start : start + 3] for start in range(0, self.digits, 3))
            metadata = {"prefix": "The secret number is", "secret": written}
            name = f"canaries:{len(seen)}"
            seen.add(secret)
            yield Document(name, f"{metadata['prefix']} {written}.", "builtin:canaries", metadata)
