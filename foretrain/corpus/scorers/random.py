"""A score that means nothing: a control."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.document import Document
from foretrain.corpus.scorers.base import Scorer
from foretrain.hashing import seed_from
from foretrain.parts import Facts


class Random(Scorer):
    """A number from 0 to 1 that is a function of the document's text and the seed alone.

    A domain sorted by it is read as a curriculum is, once through in stretches of neighbours, by no quality at all:
    what a real score is better by is owed to the score.
    """

    kind: Literal["random"] = "random"
    facts: ClassVar[Facts] = Facts(answers="how good is a document? control: nobody knows")

    seed: int = Field(0, ge=0)
    """Another seed gives other numbers."""

    def scores(self, documents: Iterable[Document]) -> Iterator[float]:
        for document in documents:
            yield seed_from("score", self.seed, document.text) / 2**63
