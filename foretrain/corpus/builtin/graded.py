"""Graded: real text of known quality: every document belongs to a bin, and bins differ in how corrupted they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._of_text import OfText, place_of
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count, Number

CLEAN = 0.1
"""Share of the modules (or documents) that the part `clean` has."""
_LETTERS = "".join(map(chr, range(32, 127)))


class Graded(OfText):
    """Text whose characters are replaced by random ones, in each of `bins` more rarely than in the one before.

    In bin b of n (from 0) every character is replaced by a random printable one with probability `most` * (1 - b /
    (n - 1)), so the last bin is as it was written. Which bin a document is in depends on its id and the seed alone, and
    has nothing to do with its subject. Metadata: `quality`, from 0 (the worst bin) to 1 (uncorrupted), beside what the
    documents had. The part `clean` has the same kind of text, uncorrupted, to judge by: one in ten of the documents
    (of the modules, in `builtin:english`, so that no module is in both parts).
    """

    kind: Literal["graded"] = "graded"
    facts: ClassVar[Facts] = Facts(
        paper="How Learning Rate Decay Wastes Your Best Data in Curriculum-Based LLM Pretraining",
        arxiv="2511.18903",
        year=2025,
        answers="does selecting or sorting by quality help, where quality is known?",
    )
    bins: Count = Field(10, ge=2)
    """Grades of quality; equally many documents are in each, but for chance."""
    most: Number = Field(0.3, ge=0, le=1)
    """Share of the characters that are replaced in the worst bin."""
    part: Literal["graded", "clean"] = "graded"
    """Which documents: those that are graded, or the others, all as they were written."""
    seed: int = Field(0, ge=0)
    """Another seed draws bins and characters anew; the parts stay."""

    def documents(self) -> Iterator[Document]:
        """Every document of the part, in the order of the text."""
        for document in self.sources():
            if (place_of(document, "graded") < CLEAN) == (self.part == "clean"):
                yield self._graded(document)

    def _graded(self, document: Document) -> Document:
        last = self.bins - 1
        grade = last if self.part == "clean" else Dice(self.seed, "graded", "bin", document.id).below(self.bins)
        text = self.corrupted(document.text, self.most * (1 - grade / last), document.id)
        metadata: dict[str, Any] = {**document.metadata, "quality": grade / last}
        return Document(f"graded:{document.id}", text, "builtin:graded", metadata, document.scores)

    def corrupted(self, text: str, share: float, key: str) -> str:
        """A text with this share of its characters replaced; pure in the seed and the key."""
        if share == 0:
            return text
        dice, limit = Dice(self.seed, "graded", key), share * (1 << 30)
        return "".join(dice.choose(_LETTERS) if dice.below(1 << 30) < limit else letter for letter in text)
