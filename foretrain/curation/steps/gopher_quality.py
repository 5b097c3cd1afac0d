"""Drop what does not look like running text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.curation.needed import require
from foretrain.curation.steps._filter import Filter
from foretrain.parts import Facts
from foretrain.section import Count, Number


class GopherQuality(Filter):
    """The quality rules of MassiveText: length, lengths of words, symbols, bullets, ellipses, letters, stop words.

    A document goes by the first rule that it breaks. The thresholds are the paper's, for web pages of a hundred words
    and more; short texts need a lower `fewest_words` and fewer `stop_words`, and other languages stop words of their
    own. Null switches a rule off.
    """

    kind: Literal["gopher_quality"] = "gopher_quality"
    facts: ClassVar[Facts] = Facts(
        paper="Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
        arxiv="2112.11446",
        year=2021,
        answers="which documents are dropped? those that do not look like running text",
    )

    fewest_words: Count | None = Field(50, gt=0)
    """Words (without punctuation) that a document has at least."""
    most_words: Count | None = Field(100_000, gt=0)
    """Words that it has at most."""
    shortest_mean: Number | None = Field(3, gt=0)
    """Mean length of its words, in letters, at least."""
    longest_mean: Number | None = Field(10, gt=0)
    """Mean length of its words at most."""
    symbols: Number | None = Field(0.1, gt=0)
    """Hashes, and also ellipses, for each word at most."""
    bullets: Number | None = Field(0.9, gt=0, le=1)
    """Share of the lines that begin with a bullet at most."""
    ellipses: Number | None = Field(0.3, gt=0, le=1)
    """Share of the lines that end with an ellipsis at most."""
    alphabetic: Number | None = Field(0.8, gt=0, le=1)
    """Share of the words (punctuation counts as some here) with a letter in them at least."""
    stop_words: int | None = Field(2, gt=0)
    """Different stop words that it holds at least."""
    stop_list: list[str] = Field(["the", "be", "to", "of", "and", "that", "have", "with"], min_length=1)
    """What counts as one."""

    def build(self, words: Any) -> Any:
        return require("datatrove.pipeline.filters.gopher_quality_filter").GopherQualityFilter(
            min_doc_words=self.fewest_words,
            max_doc_words=self.most_words,
            min_avg_word_length=self.shortest_mean,
            max_avg_word_length=self.longest_mean,
            max_symbol_word_ratio=self.symbols,
            max_bullet_lines_ratio=self.bullets,
            max_ellipsis_lines_ratio=self.ellipses,
            max_non_alpha_words_ratio=self.alphabetic,
            min_stop_words=self.stop_words,
            stop_words=self.stop_list,
            language=words,
        )
