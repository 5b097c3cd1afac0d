"""Drop what repeats itself."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from foretrain.curation.needed import require
from foretrain.curation.steps._filter import Filter
from foretrain.parts import Facts
from foretrain.section import Number

Shares = dict[Annotated[int, Field(ge=1)], Annotated[Number, Field(gt=0, le=1)]]


class GopherRepetition(Filter):
    """The repetition rules of MassiveText: lines, paragraphs and n-grams of words that come again inside one document.

    The thresholds are the paper's (its table A1). A document goes by the first rule that it breaks; null, or no entry
    for an n, switches a rule off.
    """

    kind: Literal["gopher_repetition"] = "gopher_repetition"
    facts: ClassVar[Facts] = Facts(
        paper="Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
        arxiv="2112.11446",
        year=2021,
        answers="which documents are dropped? those that repeat themselves",
    )

    lines: Number | None = Field(0.3, gt=0, le=1)
    """Share of the lines that stood before, at most."""
    paragraphs: Number | None = Field(0.3, gt=0, le=1)
    """Share of the paragraphs that stood before, at most."""
    line_letters: Number | None = Field(0.2, gt=0, le=1)
    """Share of the text in such lines, at most."""
    paragraph_letters: Number | None = Field(0.2, gt=0, le=1)
    """Share of the text in such paragraphs, at most."""
    most_common: Shares = {2: 0.2, 3: 0.18, 4: 0.16}
    """By n: the share of the text that the most common n-gram may make up."""
    repeated: Shares = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}
    """By n: the share of the text in n-grams that stood before, at most."""

    def build(self, words: Any) -> Any:
        return require("datatrove.pipeline.filters.gopher_repetition_filter").GopherRepetitionFilter(
            dup_line_frac=self.lines,
            dup_para_frac=self.paragraphs,
            dup_line_char_frac=self.line_letters,
            dup_para_char_frac=self.paragraph_letters,
            top_n_grams=tuple(self.most_common.items()),
            dup_n_grams=tuple(self.repeated.items()),
            language=words,
        )
