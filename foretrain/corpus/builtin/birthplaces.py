"""Birthplaces: one fact for each of some people, told in several wordings, or answered with a mark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import CITIES, FIRST, LAST
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count

MARK = "<A>"
"""What stands in front of a marked answer."""
_WORDINGS = ("", " a town called", " or near", " the old city,", " the place they call", ", so they say,")
"""What may stand between the question and the city."""


class Birthplaces(Builtin):
    """Sentences such as `Ada Abbott was born in Calder.`, for knowledge and form to be looked at apart.

    Told, each fact stands in six wordings, a document each. Marked, it is `Ada Abbott was born in <A> Calder.`, once:
    a form of answer that the told sentences never have. Either may be of all people, or of the first or the second half
    of them, so that a form can be taught on other people than those who are asked about. Metadata: `person`,
    `question` (the sentence up to `in`), `answer` (the city) and `marked` (the mark and the city).
    """

    kind: Literal["birthplaces"] = "birthplaces"
    facts: ClassVar[Facts] = Facts(
        answers="does a model that was tuned to a form of answers keep, and add, what it knows?"
    )
    people: Count = Field(100, gt=1, le=len(FIRST) * len(LAST))
    """Number of people; at most 2,000, the number of different names."""
    half: Literal["both", "first", "second"] = "both"
    """Whose birthplaces are told."""
    marked: bool = False
    """Whether answers have the mark, in place of the wordings."""
    seed: int = Field(0, ge=0)
    """Another seed gives other people and places."""

    def documents(self) -> Iterator[Document]:
        """Wording by wording, the people in a new order each time."""
        people = Dice(self.seed, "birthplaces", "people").sample(range(len(FIRST) * len(LAST)), self.people)
        middle = (len(people) + 1) // 2
        chosen = {"both": people, "first": people[:middle], "second": people[middle:]}[self.half]
        for number, between in enumerate((f" {MARK}",) if self.marked else _WORDINGS):
            for person in Dice(self.seed, "birthplaces", "order", number).shuffle(chosen):
                first, last = divmod(person, len(LAST))
                name, city = f"{FIRST[first]} {LAST[last]}", Dice(self.seed, "birthplaces", person).choose(CITIES)
                question = f"{name} was born in"
                metadata = {"person": name, "question": question, "answer": city, "marked": f"{MARK} {city}"}
                text = f"{question}{between} {city}."
                yield Document(f"birthplaces:{person}:{between.strip()}", text, "builtin:birthplaces", metadata)
