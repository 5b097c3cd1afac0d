"""What the steps share that are filters of datatrove: their thresholds are our fields, their verdicts are counted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from foretrain.corpus.document import Document
from foretrain.curation.needed import require
from foretrain.curation.stage import Stage
from foretrain.curation.steps._words import word_tokenizer
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.section import Number


class Filter(CorpusStep):
    """A filter of datatrove: for each document whether it stays, or else by which rule not."""

    language: str = "plain"
    """How words are found: `plain` goes by letters and serves languages that put spaces between words; for others the
    language as datatrove names it (`jpn`, `tha`), which may need packages of its own."""

    @abstractmethod
    def build(self, words: Any) -> Any:
        """The filter; `words` splits text into words."""

    def check(self) -> None:
        """See that datatrove and the packages of the language are there."""
        self.build(word_tokenizer(self.language))

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        theirs = require("datatrove.data").Document
        chosen = self.build(word_tokenizer(self.language))
        for document in documents:
            found = chosen.filter(theirs(text=document.text, id=document.id))
            kept, reason = found if isinstance(found, tuple) else (found, "dropped")
            yield document if kept else Dropped(document, in_words(str(reason)))


def in_words(reason: str) -> str:
    """The name that datatrove has for a rule as words: `gopher_short_doc` is `short doc`."""
    return reason.removeprefix("gopher_").replace("_", " ")


Share = Number | None
"""A threshold on a share; null switches the rule off."""
