"""Give every document a score."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import tee
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.document import Document
from foretrain.corpus.scorers.base import Scorer
from foretrain.curation.stage import Stage
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.parts import Facts, PartOf
from foretrain.section import Number


class Score(CorpusStep):
    """Any scorer's number, as a score of each document that the finished corpus keeps; and a filter by it, if asked.

    A recipe selects and sorts by such scores: `score: {kind: field, field: quality}` with `keep` or `order`.
    """

    kind: Literal["score"] = "score"
    facts: ClassVar[Facts] = Facts(answers="how good is each document? as a scorer says, kept beside its text")

    column: str = Field("quality", pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """What the score is called: its column in the corpus is `score_` and this."""
    scorer: PartOf[Scorer]
    """What gives it."""
    least: Number | None = None
    """Documents of a lower score are dropped."""
    most: Number | None = None
    """Documents of a higher score are dropped."""

    @model_validator(mode="after")
    def _some_left(self) -> Score:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError("`least` is above `most`, so no document could stay")
        return self

    def gives(self) -> tuple[str, ...]:
        return (self.column,)

    def content(self) -> Any:
        return {**self.model_dump(mode="json"), "scorer": self.scorer.content()}

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        read, scored = tee(documents)  # the scorer runs at most a document ahead
        for document, value in zip(read, self.scorer.scores(scored), strict=True):
            scores = {**document.scores, self.column: float(value)}
            found = Document(document.id, document.text, document.source, document.metadata, scores)
            if self.least is not None and value < self.least:
                yield Dropped(found, f"{self.column} below {self.least:g}", f"{value:.4g}")
            elif self.most is not None and value > self.most:
                yield Dropped(found, f"{self.column} above {self.most:g}", f"{value:.4g}")
            else:
                yield found
