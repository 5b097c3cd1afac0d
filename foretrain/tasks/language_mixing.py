"""Whether a model that is prompted in one language writes another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_serializer, model_validator

from foretrain.corpus.items import read_items
from foretrain.corpus.where import Wanted, without_unused
from foretrain.errors import RequestError, unknown_name
from foretrain.generation import generate
from foretrain.parts import Facts
from foretrain.section import Count, DataPath, Number, Section
from foretrain.tasks.base import Evaluated, Measured, Task
from foretrain.tasks.statistics import mean

_WORD = re.compile(r"[^\W\d_]+")


class LanguageText(Section):
    """A text that tells the words of a language."""

    path: DataPath
    """A file, a folder, `data:FILE`, `hub:NAME` or `builtin:NAME` with the field `text`."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""
    where: dict[str, Wanted] = {}
    """Keep items whose fields have these values (any of them, for a list)."""
    limit: Count | None = Field(1000, gt=0)
    """Read at most this many documents; null: all."""

    _without_unused = model_serializer(mode="wrap")(without_unused)

    def texts(self) -> list[str]:
        """The text of every document."""
        found = read_items(self.path, ("text",), self.limit, options=self.options, where=self.where)
        return [str(item["text"]) for item in found]


class LanguageMixing(Task):
    """Continues the first words of texts in one language, by sampling, and counts the words of other languages.

    A word is of a language if it occurs in that language's text and in no other's; words that are in none, or in
    several, or shorter than `letters`, are told to nobody. `generate` draws each continuation from the model's own
    distribution (`temperature`), the same ones for every model that gives the same probabilities.

    Metrics: `mixing`, the share of other languages among the words that are of one (0 where there are none); `own` and
    `other`, the shares of the language asked for and of others among all words written.
    """

    kind: Literal["language_mixing"] = "language_mixing"
    facts: ClassVar[Facts] = Facts(answers="does the model stay in the language that it is spoken to?")
    measures: ClassVar[Mapping[str, bool] | None] = {"mixing": False, "own": True, "other": False}

    prompts: LanguageText
    """Texts in the language asked for, whose first words are continued; held out from the corpus."""
    languages: dict[str, LanguageText] = Field(min_length=2)
    """Every language by name, with a text that tells its words; these may be of the corpus."""
    language: str
    """Which of them is asked for."""
    words: Count = Field(8, gt=0)
    """Words of each text that are given."""
    letters: Count = Field(3, gt=0)
    """Shortest word that is counted."""
    tokens: Count = Field(64, gt=0)
    """Most tokens to write for each prompt."""
    temperature: Number = Field(1.0, ge=0)
    """1 samples from the model's own distribution; 0 takes the likeliest token."""

    @model_validator(mode="after")
    def _known_language(self) -> LanguageMixing:
        if self.language not in self.languages:
            raise ValueError(f"language: {unknown_name('language', self.language, self.languages)}")
        return self

    def texts(self) -> Iterable[str]:
        """What is given of each text."""
        return self.given()

    def given(self) -> list[str]:
        """The prompts: the first words of every text that has more."""
        pattern = re.compile(rf"\s*(?:\S+\s+){{{self.words}}}(?=\S)")
        found = [match[0].rstrip() for text in self.prompts.texts() if (match := pattern.match(text))]
        if not found:
            raise RequestError(
                f"task 'language_mixing': no text of {self.prompts.path} is longer than {self.words} words (words); "
                "ask for fewer, or name longer texts."
            )
        return found

    def check(self) -> None:
        """Read the prompts, and the text of every language."""
        self.given()
        self.owners()

    def owners(self) -> dict[str, str]:
        """The language of every word that is in one alone.

        Raises:
            RequestError: a language has no word of its own.
        """
        known: dict[str, set[str]] = {}
        for name, told in self.languages.items():
            for text in told.texts():
                for word in self.counted(text):
                    known.setdefault(word, set()).add(name)
        owners = {word: next(iter(names)) for word, names in known.items() if len(names) == 1}
        for name in self.languages:
            if name not in owners.values():
                raise RequestError(
                    f"task 'language_mixing': languages.{name}: its text has no word that is in none of the others."
                )
        return owners

    def counted(self, text: str) -> list[str]:
        """The words of a text that are long enough, in small letters."""
        return [word for word in _WORD.findall(text.lower()) if len(word) >= self.letters]

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        owners = self.owners()
        written = generate(subject, self.given(), tokens=self.tokens, temperature=self.temperature, seed=seed)
        counts = [Counter(owners.get(word, "") for word in self.counted(one.text)) for one in written]
        own = [count[self.language] for count in counts]
        told = [count.total() - count[""] for count in counts]
        other = [all_told - mine for all_told, mine in zip(told, own, strict=True)]
        words = [count.total() for count in counts]
        return {
            "mixing": _share(other, told, higher_is_better=False),
            "own": _share(own, words, higher_is_better=True),
            "other": _share(other, words, higher_is_better=False),
        }


def _share(amounts: Sequence[int], sizes: Sequence[int], *, higher_is_better: bool) -> Measured:
    """sum(amounts) / sum(sizes) over the texts that have a size; 0 where none has."""
    pairs = [(amount, size) for amount, size in zip(amounts, sizes, strict=True) if size > 0]
    if not pairs:
        return Measured(0.0, None, None, len(amounts), higher_is_better)
    found, of = zip(*pairs, strict=True)
    return mean(found, of, higher_is_better=higher_is_better)
