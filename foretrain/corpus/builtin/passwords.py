"""Passwords: facts made of a name and a number, which nothing but the text itself could teach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import FIRST, LAST, THINGS
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count

_NUMBERS = 10_000
_STEP = 3_331
"""From one version of a password to the next; no common factor with their number, so that all versions differ."""


class Passwords(Builtin):
    """Sentences such as `The password of Ada Abbott is 4821.`, each with a name and four digits (or a word) of its own.

    Another `version` tells of the same people with other passwords: two versions in one run contradict each other.
    Metadata: `person`, `question` (the sentence up to `is`) and `answer` (the digits, or the word).
    """

    kind: Literal["passwords"] = "passwords"
    facts: ClassVar[Facts] = Facts(answers="does a model know a fact that only a few documents tell?")
    count: Count = Field(20, gt=0, le=len(FIRST) * len(LAST))
    """Number of people; at most 2,000, the number of different names."""
    version: int = Field(0, ge=0, lt=_NUMBERS)
    """Another version gives the same people other passwords."""
    words: bool = False
    """Whether passwords are words in place of digits; there are only some, so that people share them."""
    seed: int = Field(0, ge=0)
    """Another seed gives other people."""

    def documents(self) -> Iterator[Document]:
        """One document a person."""
        people = Dice(self.seed, "passwords", "people").sample(range(len(FIRST) * len(LAST)), self.count)
        for number, chosen in enumerate(people):
            first, last = divmod(chosen, len(LAST))
            person = f"{FIRST[first]} {LAST[last]}"
            start = Dice(self.seed, "passwords", chosen).below(_NUMBERS)
            answer = f"{(start + _STEP * self.version) % _NUMBERS:04d}"
            if self.words:
                answer = THINGS[(start + self.version) % len(THINGS)]
            question = f"The password of {person} is"
            metadata = {"person": person, "question": question, "answer": answer}
            yield Document(f"passwords:{number}", f"{question} {answer}.", "builtin:passwords", metadata)
