"""Tagged: sentences of made-up words, each with its class, which for some words only the neighbours tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count, Number


class Tagged(Builtin):
    """Sentences such as `w7 w12 w40`, and for each word a class.

    A plain word always has the same class (its number modulo `classes`). An ambiguous one has the sum of the plain
    classes of the words at its left and its right, modulo `classes`: who reads one way only cannot know it. Metadata:
    `tokens` and `tags`, lists of the same length.
    """

    kind: Literal["tagged"] = "tagged"
    facts: ClassVar[Facts] = Facts(
        paper="Should We Still Pretrain Encoders with Masked Language Modeling?",
        arxiv="2507.00994",
        year=2025,
        answers="are words told apart by what stands on both sides of them?",
    )
    count: Count = Field(2000, gt=0, le=100_000)
    """Number of sentences."""
    words: Count = Field(64, ge=4, le=10_000)
    """Different words."""
    classes: Count = Field(8, ge=2, le=100)
    """Different classes."""
    ambiguous: Number = Field(0.3, ge=0, le=1)
    """Share of the words whose class their neighbours tell."""
    length: Count = Field(12, ge=3, le=200)
    """Words of a sentence."""
    seed: int = Field(0, ge=0)
    """Another seed gives other sentences of other words."""

    def documents(self) -> Iterator[Document]:
        """Every sentence."""
        dice = Dice(self.seed, "tagged", self.words, self.length)
        unclear = set(dice.sample(range(self.words), round(self.ambiguous * self.words)))
        for number in range(self.count):
            row = [dice.below(self.words) for _ in range(self.length)]
            plain = [word % self.classes for word in row]
            around = zip(row, plain, [0, *plain[:-1]], [*plain[1:], 0], strict=True)
            tags = [(left + right) % self.classes if word in unclear else own for word, own, left, right in around]
            tokens = [f"w{word}" for word in row]
            metadata = {"tokens": tokens, "tags": [f"c{tag}" for tag in tags]}
            yield Document(f"tagged:{number}", " ".join(tokens), "builtin:tagged", metadata)
