"""Biographies of people who do not exist: facts with known answers, told once or in many ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import CITIES, COMPANIES, FIRST, LAST, MAJORS, MIDDLE, UNIVERSITIES
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count

_COMPANY_CITIES = 8
"""A company's city is decided by its number modulo this."""


@dataclass(frozen=True)
class _Attribute:
    name: str
    question: str
    templates: tuple[str, ...]


ATTRIBUTES = (
    _Attribute(
        "birth_year",
        "What is the birth year of {n}?",
        (
            "{s} {was} born in the year {v}.",
            "{s} came into the world in {v}.",
            "{s} celebrated a first birthday one year after {v}.",
            "The birth of {o} took place in {v}.",
            "{s} belonged to those born in {v}.",
            "{s} entered life during {v}.",
        ),
    ),
    _Attribute(
        "birth_city",
        "What is the birth city of {n}?",
        (
            "{s} {was} born in {v}.",
            "{s} came from {v}.",
            "{s} {was} a native of {v}.",
            "{s} came to life in {v}.",
            "{s} first saw light in {v}.",
            "{s} grew out of {v}.",
        ),
    ),
    _Attribute(
        "university",
        "Which university did {n} study at?",
        (
            "{s} studied at {v}.",
            "{s} received a degree from {v}.",
            "{s} attended lectures at {v}.",
            "{s} graduated from {v}.",
            "{s} completed an education at {v}.",
            "{s} spent the student years at {v}.",
        ),
    ),
    _Attribute(
        "major",
        "What major did {n} study?",
        (
            "{s} majored in {v}.",
            "{s} took a degree in {v}.",
            "{s} specialized in {v}.",
            "{s} focused on the field of {v}.",
            "{s} devoted those years to {v}.",
            "{s} chose the subject of {v}.",
        ),
    ),
    _Attribute(
        "company",
        "Which company did {n} work for?",
        (
            "{s} worked for {v}.",
            "{s} found employment at {v}.",
            "{s} had a career at {v}.",
            "{s} joined the staff of {v}.",
            "{s} earned a living at {v}.",
            "{s} held a position at {v}.",
        ),
    ),
    _Attribute(
        "company_city",
        "Where did {n} work?",
        (
            "{s} worked in {v}.",
            "{s} had an office in {v}.",
            "{s} made a living in {v}.",
            "{s} {was} employed in {v}.",
            "{s} went to work in {v}.",
            "{s} pursued a profession in {v}.",
        ),
    ),
)
"""The six facts of a person, in the order in which an unpermuted biography tells them."""

_PRONOUNS = (("He", "him", "was"), ("She", "her", "was"), ("They", "them", "were"))


@dataclass(frozen=True)
class _Person:
    number: int
    name: str
    pronoun: tuple[str, str, str]
    facts: dict[str, str]


class Biographies(Builtin):
    """The synthetic biographies of *Physics of Language Models 3.1*, small (bioS-mini).

    Every person has a unique name and six facts: birth year (20 values), birth city (20), university (20), major (10),
    company (20), and the company's city, which follows from the company (8). A biography is six sentences, one a
    fact, with six templates each; the name stands in the first sentence, a pronoun in the others.

    The arms of the paper: *single* is the default; *multi5* is `versions: 5, rephrase: true`; *permute5* is
    `versions: 5, permute: true`; *multi5+permute* is all three; *fullname* is `fullname: true`. Documents come version
    by version with the people shuffled anew, so that the versions of one person stand far apart.

    Question documents (`Question: ... Answer: ....`, one a document) are about the first half of the people (`train`),
    the other half (`test`) or all; with `biographies: false` they are a domain of their own, to be mixed in by weight.
    Metadata: `person` (use it as `group`), the six facts, and for questions `attribute`, `question` and `answer`.
    """

    kind: Literal["biographies"] = "biographies"
    facts: ClassVar[Facts] = Facts(
        paper="Physics of Language Models: Part 3.1, Knowledge Storage and Extraction",
        arxiv="2309.14316",
        year=2023,
        answers="are facts that a model memorised also extractable?",
    )
    people: Count = Field(300, gt=0, le=len(FIRST) * len(MIDDLE) * len(LAST))
    """Number of people; at most 50,000, the number of different names."""
    versions: int = Field(1, ge=1, le=1000)
    """Biographies of each person."""
    rephrase: bool = False
    """Whether each version draws its own templates; otherwise a person's templates are drawn once."""
    permute: bool = False
    """Whether each version draws its own order of the sentences."""
    fullname: bool = False
    """Whether every sentence names the person in full."""
    biographies: bool = True
    """Whether the corpus holds biographies."""
    questions: Literal["none", "train", "test", "all"] = "none"
    """Whose questions it holds: nobody's, those about the first half of the people, the other half, or all."""
    seed: int = Field(0, ge=0)
    """Another seed gives other people."""

    @model_validator(mode="after")
    def _different(self) -> Biographies:
        if self.versions > 1 and not (self.rephrase or self.permute):
            raise ValueError("several versions need 'rephrase' or 'permute', or they would all be the same text")
        if not self.biographies and self.questions == "none":
            raise ValueError("without biographies and without questions there is no document")
        return self

    def documents(self) -> Iterator[Document]:
        """Every biography, version by version; then every question, in random order."""
        people = self._people()
        if self.biographies:
            for version in range(self.versions):
                for person in Dice(self.seed, "order", version).shuffle(people):
                    metadata = {"person": person.name, **person.facts}
                    name = f"biographies:{person.number}:{version}"
                    yield Document(name, self._biography(person, version), "builtin:biographies", metadata)
        half = (len(people) + 1) // 2
        chosen = {"none": [], "train": people[:half], "test": people[half:], "all": people}[self.questions]
        asked = [(person, attribute) for person in chosen for attribute in ATTRIBUTES]
        for person, attribute in Dice(self.seed, "questions").shuffle(asked):
            question, answer = attribute.question.format(n=person.name), person.facts[attribute.name]
            yield Document(
                f"biographies:{person.number}:{attribute.name}",
                f"Question: {question} Answer: {answer}.",
                "builtin:biographies",
                {
                    "person": person.name,
                    **person.facts,
                    "attribute": attribute.name,
                    "question": question,
                    "answer": answer,
                },
            )

    def _people(self) -> list[_Person]:
        dice = Dice(self.seed, "people")
        numbers = dice.sample(range(len(FIRST) * len(MIDDLE) * len(LAST)), self.people)
        return [self._person(i, number) for i, number in enumerate(numbers)]

    def _person(self, number: int, name: int) -> _Person:
        dice = Dice(self.seed, "person", number)
        company = dice.below(len(COMPANIES))
        rest, last = divmod(name, len(LAST))
        first, middle = divmod(rest, len(MIDDLE))
        facts = {
            "birth_year": str(1950 + dice.below(20)),
            "birth_city": dice.choose(CITIES),
            "university": dice.choose(UNIVERSITIES),
            "major": dice.choose(MAJORS),
            "company": COMPANIES[company],
            "company_city": CITIES[company % _COMPANY_CITIES],
        }
        return _Person(number, f"{FIRST[first]} {MIDDLE[middle]} {LAST[last]}", dice.choose(_PRONOUNS), facts)

    def _biography(self, person: _Person, version: int) -> str:
        wording = Dice(self.seed, "wording", person.number, version if self.rephrase else 0)
        templates: list[tuple[str, Any]] = [(wording.choose(entry.templates), entry) for entry in ATTRIBUTES]
        if self.permute:
            templates = Dice(self.seed, "sentences", person.number, version).shuffle(templates)
        sentences = []
        for i, (template, attribute) in enumerate(templates):
            he, him, was = (person.name, person.name, "was") if i == 0 or self.fullname else person.pronoun
            sentences.append(template.format(s=he, o=him, was=was, v=person.facts[attribute.name]))
        return " ".join(sentences)
