"""Modular sums: lines of arithmetic modulo a number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import NUMBERS
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count


class ModularSums(Builtin):
    """Lines such as `17 + 58 = 2 (mod 73)`; no two have the same two numbers in the same order.

    With `words` they are written as `five plus nine makes three modulo eleven`, for runs in which digits are read.

    `skip` leaves out the first lines that the same seed gives, so that lines to ask for are none of those to train on.
    Metadata: `question` (up to the equals sign) and `answer` (the sum).
    """

    kind: Literal["modular_sums"] = "modular_sums"
    facts: ClassVar[Facts] = Facts(
        paper="Grokking: Generalization Beyond Overfitting on Small Algorithmic Datasets",
        arxiv="2201.02177",
        year=2022,
        answers="does a model learn a rule from some of its cases?",
    )
    count: Count = Field(1000, gt=0)
    """Number of lines."""
    modulus: Count = Field(97, ge=2, le=10_000)
    """What the sums are taken modulo."""
    words: bool = False
    """Whether numbers are written as words; then the modulus is at most 20."""
    skip: Count = Field(0, ge=0)
    """Lines to leave out first."""
    seed: int = Field(0, ge=0)
    """Another seed gives the lines in another order."""

    @model_validator(mode="after")
    def _enough(self) -> ModularSums:
        if self.skip + self.count > self.modulus**2:
            raise ValueError(
                f"skip ({self.skip}) and count ({self.count}) should be at most the {self.modulus**2} pairs of numbers "
                "together"
            )
        if self.words and self.modulus >= len(NUMBERS):
            raise ValueError(f"modulus ({self.modulus}) should be at most {len(NUMBERS) - 1} where numbers are words")
        return self

    def documents(self) -> Iterator[Document]:
        """Every line."""
        dice, seen = Dice(self.seed, "modular_sums", self.modulus), set[int]()
        while len(seen) < self.skip + self.count:
            pair = dice.below(self.modulus**2)
            if pair in seen:
                continue
            seen.add(pair)
            if len(seen) > self.skip:
                first, second = divmod(pair, self.modulus)
                total = (first + second) % self.modulus
                question, answer, after = f"{first} + {second} =", str(total), f"(mod {self.modulus})"
                if self.words:
                    question, answer = f"{NUMBERS[first]} plus {NUMBERS[second]} makes", NUMBERS[total]
                    after = f"modulo {NUMBERS[self.modulus]}"
                text = f"{question} {answer} {after}"
                metadata = {"question": question, "answer": answer}
                yield Document(f"modular_sums:{pair}", text, "builtin:modular_sums", metadata)
