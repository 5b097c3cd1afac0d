"""Ciphers: languages that differ from each other in their letters alone, some of them related, with translations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.corpus.records import Reader
from foretrain.hashing import hash_data
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.wording import check_template, fill

if TYPE_CHECKING:
    from foretrain.corpus.inputs import Input

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_SOURCES = ("builtin:", "data:", "hub:")


def _check_source(path: str) -> str:
    if not path.startswith(_SOURCES) or path == "builtin:ciphers":
        raise ValueError("should be `builtin:NAME` (another one), `data:FILE` or `hub:NAME`")
    return path


class Ciphers(Builtin):
    """A text in invented languages: language 0 is the text itself, every other one a permutation of its letters.

    Languages are numbers, and the same in every domain with the same `seed` and `like`. No letter of a language stands
    for the one that it stands for in language 0, but for those that `like` makes relatives: a relative shares the share
    `shared` of its letters with the language it is like. What is no letter of a to z stays, and capitals stay capitals.

    With `beside`, documents are translations: sentence by sentence, a line each, by the `template`, in which `{own}`
    is the sentence in the document's language and `{other}` in the other one. They are about twice as long.

    Metadata: that of the text, `language`, and `origin`, which all languages share: `group: origin` holds out the same
    documents in each. How much there is of a language is said in the recipe (`limit`, `unique`). Languages differ in
    nothing but letters, so that one is learned from another more easily than among real ones.
    """

    kind: Literal["ciphers"] = "ciphers"
    facts: ClassVar[Facts] = Facts(answers="several languages of known relation, with as much text as one likes?")
    language: Count = Field(1, ge=0)
    """Number of the language."""
    like: dict[int, int] = {}
    """Relatives: `{2: 1}` makes language 2 like language 1."""
    shared: Number = Field(0.7, ge=0, lt=1)
    """Share of its letters that a relative has in common with what it is like."""
    beside: Count | None = Field(None, ge=0)
    """Another language that every sentence is translated to; unset: the language alone."""
    template: Annotated[str, AfterValidator(check_template)] = "{other} || {own}"
    """How a sentence and its translation stand in a line."""
    text: Annotated[str, AfterValidator(_check_source)] = "builtin:english"
    """What is written in these languages: `builtin:NAME`, `data:FILE` or `hub:NAME`, with the field `text`."""
    seed: int = Field(0, ge=0)
    """Another seed gives other languages."""

    @model_validator(mode="after")
    def _some_language(self) -> Ciphers:
        for first in self.like:
            seen, number = [first], first
            while number in self.like:
                number = self.like[number]
                if number in seen:
                    raise ValueError(f"like: languages {', '.join(map(str, [*seen, number]))} are like each other")
                seen.append(number)
        if 0 in self.like:
            raise ValueError("like: language 0 is the text itself; write it the other way around, such as {1: 0}")
        if self.beside == self.language:
            raise ValueError(f"beside ({self.beside}) should be another language than the document's own")
        return self

    def sources_hash(self) -> str:
        """That of the text."""
        return hash_data([entry.identity(None) for entry in self._inputs()])

    def documents(self) -> Iterator[Document]:
        """Every document of the text, in its order."""
        own = letters(self.language, self.like, self.shared, self.seed)
        other = None if self.beside is None else letters(self.beside, self.like, self.shared, self.seed)
        reader = Reader()
        for number, source in enumerate(found for entry in self._inputs() for found in entry.documents(reader)):
            written = source.text.translate(own) if other is None else self._translated(source.text, own, other)
            metadata = {**source.metadata, "language": self.language, "origin": hash_data(source.text)}
            yield Document(f"ciphers:{self.language}:{number}", written, "builtin:ciphers", metadata)

    def _translated(self, text: str, own: Mapping[int, str], other: Mapping[int, str]) -> str:
        pairs = (
            {"own": sentence.translate(own), "other": sentence.translate(other)}
            for sentence in _SENTENCE.split(text)
            if sentence
        )
        return "\n".join(fill(self.template, pair, "template") for pair in pairs)

    def _inputs(self) -> list[Input]:
        from foretrain.corpus.inputs import open_path  # it finds this file, among others

        return open_path(self.text)


def letters(language: int, like: Mapping[int, int], shared: float, seed: int) -> dict[int, str]:
    """The letters of a language, as a table for `str.translate`.

    Args:
        language: its number.
        like: what it and others are like, by number; what is not in it shares no letter with language 0.
        shared: share of its letters that a relative has in common with what it is like.
        seed: of all languages.
    """
    alphabet = _alphabet(language, like, shared, seed)
    pairs = zip(ascii_lowercase + ascii_uppercase, alphabet + alphabet.upper(), strict=True)
    return {ord(letter): written for letter, written in pairs}


def _alphabet(language: int, like: Mapping[int, int], shared: float, seed: int) -> str:
    if language == 0:
        return ascii_lowercase
    base = _alphabet(like.get(language, 0), like, shared, seed)
    differ = max(2, round((1 - shared) * len(base))) if language in like else len(base)
    # Letters that change places in a ring: none of them keeps its own.
    places = Dice(seed, "ciphers", language).sample(range(len(base)), differ)
    moved = list(base)
    for place, source in zip(places, [*places[1:], places[0]], strict=True):
        moved[place] = base[source]
    return "".join(moved)
