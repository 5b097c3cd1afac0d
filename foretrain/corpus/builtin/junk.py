"""Junk: real text in which a known share of the documents was replaced by what nobody wants to learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._of_text import OfText, place_of
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Number

CLEAN, SLICE = 0.1, 0.05
"""Shares of the documents that the parts `clean` and `slice` have."""
BOILERPLATE = (
    "All rights reserved.",
    "Click here to subscribe to our newsletter.",
    "This site uses cookies to improve your experience.",
    "Share this page with your friends.",
    "Terms of use and privacy policy apply.",
    "Please enable JavaScript to view the comments.",
    "Sign up or log in to continue.",
    "Copyright of the respective owners.",
    "Back to the top of the page.",
    "You may also like these articles.",
    "Advertisement. Scroll to continue reading.",
    "No part of this work may be reproduced without permission.",
)
_Part = Literal["mixed", "slice", "clean"]


class Junk(OfText):
    """Text of which a share of the documents is junk: half of that has its words shuffled, half is boilerplate.

    Shuffled words no model can foretell; boilerplate (the same dozen sentences again and again, as long as the document
    was) every model soon can. Metadata: `junk` (`none`, `shuffled`, `boilerplate`), beside what the documents had.

    The parts share no document: `clean` has one in ten, as they were written, to judge by; `slice` one in twenty, to
    train a small model on that should not have seen the rest; `mixed` the others. `slice` and `mixed` hold junk alike.
    """

    kind: Literal["junk"] = "junk"
    facts: ClassVar[Facts] = Facts(
        paper="MiniPLM: Knowledge Distillation for Pre-Training Language Models (its question; the junk is ours)",
        arxiv="2410.17215",
        year=2024,
        answers="does a selection leave out what cannot be learnt, and what is known already?",
    )
    share: Number = Field(0.3, ge=0, le=1)
    """Share of the documents that are junk."""
    part: _Part = "mixed"
    """Which documents."""
    seed: int = Field(0, ge=0)
    """Another seed makes junk of other documents; the parts stay."""

    def documents(self) -> Iterator[Document]:
        """Every document of the part, in the order of the text."""
        for document in self.sources():
            if part_of(document) == self.part:
                yield self._made(document)

    def _made(self, document: Document) -> Document:
        dice, junk, text = Dice(self.seed, "junk", document.id), "none", document.text
        if self.part != "clean" and dice.point() < self.share:
            junk = dice.choose(("shuffled", "boilerplate"))
            text = shuffled(text, dice) if junk == "shuffled" else boilerplate(len(text), dice)
        metadata: dict[str, Any] = {**document.metadata, "junk": junk}
        return Document(f"junk:{document.id}", text, "builtin:junk", metadata, document.scores)


def part_of(document: Document) -> _Part:
    """The part that a document of the text is in."""
    place = place_of(document, "junk")
    return "clean" if place < CLEAN else "slice" if place < CLEAN + SLICE else "mixed"


def shuffled(text: str, dice: Dice) -> str:
    """The words of a text in random order, a space between them."""
    return " ".join(dice.shuffle(text.split()))


def boilerplate(characters: int, dice: Dice) -> str:
    """Sentences of the dozen, drawn again and again until they are as long as asked for."""
    found = dice.choose(BOILERPLATE)
    while len(found) < characters:
        found += f" {dice.choose(BOILERPLATE)}"
    return found
