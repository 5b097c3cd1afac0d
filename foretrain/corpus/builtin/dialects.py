"""Dialects: sums modulo a number in two dialects that nothing but the answer tells apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count, Number


class Dialects(Builtin):
    """Sums such as `kd=n`, whose numbers are letters (a is 0): dialect a says (k + d), dialect b one more, modulo p.

    With the byte tokenizer every document is four tokens and its end. In the mixture each document is of dialect a by
    chance (`share`), so that a model of it can do no better than give both answers their shares, and what decides
    between them is feedback. All pairs of numbers are split by `seed` alone into those for feedback and those to test.
    Metadata: `question` (up to `=`), `answer` and `dialect`.
    """

    kind: Literal["dialects"] = "dialects"
    facts: ClassVar[Facts] = Facts(answers="does feedback decide between two answers that the corpus gives?")
    dialect: Literal["mixture", "a", "b"] = "mixture"
    """Which dialect the documents are in."""
    share: Number = Field(0.7, ge=0, le=1)
    """Chance of dialect a in the mixture, for every document by itself."""
    part: Literal["all", "feedback", "test"] = "all"
    """Which pairs of numbers."""
    feedback: Count = Field(128, gt=0)
    """How many pairs are for feedback; the others are for tests."""
    modulus: Count = Field(23, ge=2, le=26)
    """What the sums are taken modulo."""
    count: Count | None = Field(None, gt=0)
    """Number of documents, drawn with replacement; unset: one for each pair of the part, in random order."""
    seed: int = Field(0, ge=0)
    """Another seed gives another split and other draws."""

    @model_validator(mode="after")
    def _pairs_left(self) -> Dialects:
        if self.feedback >= self.modulus**2:
            raise ValueError(f"feedback ({self.feedback}) should be below the {self.modulus**2} pairs of numbers")
        return self

    def documents(self) -> Iterator[Document]:
        """Every document."""
        pairs = self._pairs()
        dice = Dice(self.seed, "dialects", self.part)
        for number in range(self.count or len(pairs)):
            first, second = divmod(dice.choose(pairs) if self.count else pairs[number], self.modulus)
            # Always drawn, so that dialects and shares are compared on the same pairs.
            mine = "a" if dice.below(1 << 30) < self.share * (1 << 30) else "b"
            dialect = mine if self.dialect == "mixture" else self.dialect
            total = (first + second + (dialect == "b")) % self.modulus
            question, answer = f"{ascii_lowercase[first]}{ascii_lowercase[second]}=", ascii_lowercase[total]
            metadata = {"question": question, "answer": answer, "dialect": dialect}
            yield Document(f"dialects:{number}", question + answer, "builtin:dialects", metadata)

    def _pairs(self) -> Sequence[int]:
        """The pairs of the part, each as a number below modulus^2, in random order."""
        shuffled = Dice(self.seed, "dialects", "pairs").shuffle(range(self.modulus**2))
        return {"all": shuffled, "feedback": shuffled[: self.feedback], "test": shuffled[self.feedback :]}[self.part]
