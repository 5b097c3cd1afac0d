"""Drop lists and broken lines."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.curation.needed import require
from foretrain.curation.steps._filter import Filter
from foretrain.parts import Facts
from foretrain.section import Count, Number


class FinewebQuality(Filter):
    """The rules of FineWeb: lines that end like sentences, lines that are short, lines that come again, line breaks.

    The thresholds are FineWeb's, for English web pages. FineWeb2 leaves out the rule on short lines (`short_lines: 1`),
    allows a tenth of repeated lines (`repeated: 0.1`), and takes the other two from reference text of each language.
    """

    kind: Literal["fineweb_quality"] = "fineweb_quality"
    facts: ClassVar[Facts] = Facts(
        paper="The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale",
        arxiv="2406.17557",
        year=2024,
        answers="which documents are dropped? lists, menus and broken lines",
    )

    ended: Number = Field(0.12, ge=0, le=1)
    """Share of the lines that end with a sign that ends a sentence, at least."""
    short_lines: Number = Field(0.67, ge=0, le=1)
    """Share of short lines, at most."""
    short: Count = Field(30, ge=0)
    """Letters up to which a line is short."""
    repeated: Number = Field(0.01, ge=0, le=1)
    """Share of the text in lines that stood before, at most."""
    breaks: Number = Field(0.3, ge=0)
    """Line breaks for each word, at most."""

    def build(self, words: Any) -> Any:
        return require("datatrove.pipeline.filters.fineweb_quality_filter").FineWebQualityFilter(
            line_punct_thr=self.ended,
            short_line_thr=self.short_lines,
            short_line_length=self.short,
            char_duplicates_ratio=self.repeated,
            new_line_ratio=self.breaks,
            language=words,
        )
