"""Reversals: lists of letters, written backwards and without what was there before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Reversals(Builtin):
    """Lines such as `c a b a c d => d c a b`: the list from its end, each letter only where it is met first.

    To write the next letter a model has to find its place in the list and to know what it has written: a task that
    needs more of it than copying does. No two lists are the same; `skip` leaves out the first ones that the seed gives.
    Metadata: `list` (up to the arrow) and `answer`.
    """

    kind: Literal["reversals"] = "reversals"
    facts: ClassVar[Facts] = Facts(answers="does a model learn an algorithm that copying does not solve?")
    count: Count = Field(4000, gt=0, le=100_000)
    """Number of lists."""
    length: Count = Field(10, ge=2, le=40)
    """Letters of a list."""
    letters: Count = Field(8, ge=2, le=26)
    """Different letters there are."""
    skip: Count = Field(0, ge=0, le=100_000)
    """Lists to leave out first."""
    seed: int = Field(0, ge=0)
    """Another seed gives other lists."""

    @model_validator(mode="after")
    def _enough(self) -> Reversals:
        if 2 * (self.skip + self.count) > self.letters**self.length:
            raise ValueError(
                f"skip ({self.skip}) and count ({self.count}) should be at most half of the "
                f"{self.letters**self.length} lists that there are"
            )
        return self

    def documents(self) -> Iterator[Document]:
        """Every list."""
        dice, seen = Dice(self.seed, "reversals", self.length, self.letters), set[str]()
        while len(seen) < self.skip + self.count:
            items = " ".join(dice.choose(LETTERS[: self.letters]) for _ in range(self.length))
            if items in seen:
                continue
            seen.add(items)
            if len(seen) > self.skip:
                answer = " ".join(dict.fromkeys(reversed(items.split())))
                given = f"{items} =>"
                metadata = {"list": given, "answer": answer}
                yield Document(f"reversals:{items}", f"{given} {answer}", "builtin:reversals", metadata)
