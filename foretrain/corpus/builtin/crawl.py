"""Crawl: a small crawl of which it is known what is good and what is a copy of what."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._of_text import OfText
from foretrain.corpus.document import Document
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number

CLEAN = 0.2
"""Share of the documents that the part `clean` has."""


class Crawl(OfText):
    """Real text among junk, in which how often a document was copied tells of its quality.

    Good documents are the beginnings of those of `of`; each stands there 2 to 30 times (log-uniform). Junk stands there
    once: half of it are words in random order (`salad`), which look like text to filters by rules, and half one phrase
    over and over (`loop`). Boilerplate stands there 100 to 150 times, half of each sort. A copy differs from its
    original in a share of its words, from none to `edits`. Documents come in random order. Metadata: `sort` (`good`,
    `salad`, `loop`), `original` (which document it is a copy of), `copies` (of that, all in all). The part `clean` is
    other documents of `of`, as they are, to judge by.
    """

    kind: Literal["crawl"] = "crawl"
    facts: ClassVar[Facts] = Facts(
        paper="FineWeb2: One Pipeline to Scale Them All — Adapting Pre-Training Data Processing to Every Language",
        arxiv="2506.20920",
        year=2025,
        answers="does curation find what is planted: copies, junk, and copies as a sign of quality?",
    )
    good: Count = Field(100, gt=0)
    """Good documents, at most: no more than there are."""
    junk: Count = Field(200, ge=0)
    """Documents of junk."""
    boilerplate: Count = Field(4, ge=0)
    """Documents of boilerplate, before they are copied."""
    length: Count = Field(1000, ge=100)
    """Letters of a document, at most."""
    edits: Number = Field(0.05, ge=0, le=1)
    """Largest share of a copy's words that differ."""
    part: Literal["crawl", "clean"] = "crawl"
    """The crawl, or other documents of the same source."""
    seed: int = Field(0, ge=0)
    """Another seed copies, edits and makes up other documents; the parts stay."""

    def documents(self) -> Iterator[Document]:
        """Every document of the part."""
        if self.part == "clean":
            for number, text in enumerate(self._texts(), 1):
                yield Document(f"crawl:clean:{number}", text, "builtin:crawl", {"sort": "good"})
            return
        texts = list(islice(self._texts(), self.good))
        words = [word for text in texts for word in text.split()]
        copies = [
            (sort, number, copy, count) for sort, number, count in self._originals(len(texts)) for copy in range(count)
        ]
        for sort, number, copy, count in Dice(self.seed, "crawl", "order").shuffle(copies):
            text = texts[number] if sort == "good" else self._junk(sort, number, words)
            name = f"{sort}:{number}"
            metadata: dict[str, Any] = {"sort": sort, "original": name, "copies": count}
            yield Document(f"crawl:{name}:{copy}", self._edited(text, name, copy), "builtin:crawl", metadata)

    def _texts(self) -> Iterator[str]:
        """The beginnings of the part's real documents, cut after a word."""
        for document in self.sources():
            group = str(document.metadata.get("module", document.text))
            if (seed_from("crawl", "part", group) / 2**63 < CLEAN) == (self.part == "clean"):
                text = document.text[: self.length + 1]
                yield text.rsplit(None, 1)[0] if len(text) > self.length else text

    def _originals(self, good: int) -> list[tuple[str, int, int]]:
        """Sort, number and copies of every document."""
        dice = Dice(self.seed, "crawl", "copies")
        found = [("good", number, round(2 * 15 ** dice.point())) for number in range(good)]
        for number in range(self.junk + self.boilerplate):
            copies = 1 if number < self.junk else dice.between(100, 150)
            found.append((("salad", "loop")[number % 2], number, copies))
        return found

    def _junk(self, sort: str, number: int, words: list[str]) -> str:
        dice = Dice(self.seed, "crawl", sort, number)
        made = [dice.choose(words) for _ in range(6 if sort == "loop" else self.length)]
        text = " ".join(made * (self.length if sort == "loop" else 1))[: self.length]
        return text.rsplit(None, 1)[0]

    def _edited(self, text: str, name: str, copy: int) -> str:
        """A copy's text: some words doubled, dropped, or replaced by others of the document; white space stays."""
        if copy == 0:
            return text
        dice, words = Dice(self.seed, "crawl", "edit", name, copy), text.split(" ")
        for place in dice.sample(range(len(words)), int(dice.point() * self.edits * len(words))):
            words[place] = dice.choose(("", f"{words[place]} {words[place]}", dice.choose(words)))
        return " ".join(word for word in words if word)
