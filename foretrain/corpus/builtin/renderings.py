"""Renderings: one relation between numbers, written in several languages."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count, Number

MARKS = {"a": ("<", "+", "="), "b": ("(", "&", ":"), "c": ("{", "|", "~"), "d": ("[", "*", ">"), "new": ("(", "+", "~")}
"""In front of the first number, between the numbers, and in front of their sum."""


class Renderings(Builtin):
    """Sums modulo a number such as `<k+d=n`, in languages that share their numbers (letters, a is 0) and nothing else.

    Four languages each have three marks of their own. A fifth, `new`, puts marks of three of them together as none
    does: text to judge by, of which everything was seen but the whole. By chance (`noise`) a document gives a random
    number in place of the sum, so languages can be more and less reliable sources of the one rule. With the byte
    tokenizer every document is six tokens and its end. Metadata: `question` (up to the last mark), `answer` (as the
    document has it) and `language`.
    """

    kind: Literal["renderings"] = "renderings"
    facts: ClassVar[Facts] = Facts(
        paper="Nexus: Same Pretraining Loss, Better Downstream Generalization via Common Minima",
        arxiv="2604.09258",
        year=2026,
        answers="do sources that share a rule teach a model the rule, or each its own?",
    )
    language: Literal["a", "b", "c", "d", "new"] = "a"
    """Which marks are used."""
    noise: Number = Field(0.0, ge=0, le=1)
    """Chance that the sum is any number."""
    modulus: Count = Field(17, ge=2, le=26)
    """What the sums are taken modulo."""
    count: Count | None = Field(None, gt=0)
    """Number of documents, drawn with replacement; unset: one for each pair of numbers, in random order."""
    seed: int = Field(0, ge=0)
    """Another seed gives other draws; languages draw apart from one another."""

    def documents(self) -> Iterator[Document]:
        """Every document."""
        dice = Dice(self.seed, "renderings", self.language)
        pairs = dice.shuffle(range(self.modulus**2))
        before, between, equals = MARKS[self.language]
        for number in range(self.count or len(pairs)):
            first, second = divmod(dice.choose(pairs) if self.count else pairs[number], self.modulus)
            total = (first + second) % self.modulus
            # Always drawn, so that documents with more and with less noise are of the same pairs.
            other, coin = dice.below(self.modulus), dice.below(1 << 30)
            answer = ascii_lowercase[other if coin < self.noise * (1 << 30) else total]
            question = f"{before}{ascii_lowercase[first]}{between}{ascii_lowercase[second]}{equals}"
            metadata = {"question": question, "answer": answer, "language": self.language}
            yield Document(f"renderings:{number}", question + answer, "builtin:renderings", metadata)
