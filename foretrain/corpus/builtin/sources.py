"""Sources: facts told by sources of unequal quality, each in a style of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import LAST, words
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count

QUALITIES = (0.95, 0.8, 0.5, 0.2)
"""How often the sources of each class state the true value; the others are uniform among the wrong ones."""
TEMPLATES = (
    "the {attribute} of {subject} is",
    "{subject} has the {attribute}",
    "for {subject} the {attribute} is",
    "as {attribute} {subject} has",
    "ask for the {attribute} of {subject} and hear",
    "{attribute} of {subject} :",
    "in {subject} the {attribute} was",
    "they gave {subject} the {attribute}",
)
ATTRIBUTES = ("colour", "metal", "season", "animal", "grain", "stone", "tree", "river")
VALUES = words("amber birch copper dune ember fjord garnet heron indigo jasper kelp linden maple north onyx pearl")
_SYLLABLES = words("ba ke li mo nu pa re si to vu da fe gi ho ju la me ni po ru")


class Sources(Builtin):
    """Documents of some facts each, from 32 sources: eight in each of four classes of quality.

    A fact is a value of an attribute of a subject, such as `the metal of mercer is copper .`. A source of a class with
    quality q states the true value with probability q, and else one of the 15 others. Every source has a name, one of
    eight ways to put a fact (each used by a source of every class, so that the way says nothing of quality) and three
    words of its own that stand here and there between facts. How much a source writes falls with its rank as 1 / rank;
    the classes take turns in the ranks. Metadata: `url`, `source` (its name) and `quality`.

    The part `questions` has one item for each fact, put in one of the ways: `question`, `choices` and `answer`; as a
    text, the true fact.
    """

    kind: Literal["sources"] = "sources"
    facts: ClassVar[Facts] = Facts(
        paper="Metadata Conditioning Accelerates Language Model Pre-training",
        arxiv="2501.01956",
        year=2025,
        answers="does it help to know who says what, where some sources are wrong?",
    )
    part: Literal["documents", "questions"] = "documents"
    """What sources say, or the facts that are asked for."""
    count: Count = Field(20_000, gt=0)
    """Number of documents."""
    subjects: int = Field(500, ge=1, le=400 * len(LAST))
    """Number of subjects."""
    attributes: int = Field(4, ge=1, le=len(ATTRIBUTES))
    """Attributes that each subject has: `subjects` * `attributes` facts in all."""
    told: int = Field(4, ge=1)
    """Facts in a document."""
    seed: int = Field(0, ge=0)
    """Another seed gives other facts, sources and documents."""

    @model_validator(mode="after")
    def _enough_facts(self) -> Sources:
        if self.told > self.subjects * self.attributes:
            raise ValueError(f"told ({self.told}) should be at most the number of facts")
        return self

    def true_value(self, fact: int) -> int:
        """The number of the true value of a fact."""
        return Dice(self.seed, "sources", "value", fact).below(len(VALUES))

    def documents(self) -> Iterator[Document]:
        """Every document, or every question."""
        if self.part == "questions":
            yield from (self._question(fact) for fact in range(self.subjects * self.attributes))
            return
        sources = _sources(self.seed)
        edges: list[float] = []
        for rank in range(len(sources)):
            edges.append((edges[-1] if edges else 0.0) + 1 / (rank + 1))
        for number in range(self.count):
            dice = Dice(self.seed, "sources", "document", number)
            point = dice.point() * edges[-1]
            yield self._document(number, sources[sum(edge <= point for edge in edges)], dice)

    def _document(self, number: int, source: _Source, dice: Dice) -> Document:
        said: list[str] = []
        facts: set[int] = set()
        while len(facts) < self.told:
            facts.add(dice.below(self.subjects * self.attributes))
        for fact in dice.shuffle(sorted(facts)):
            value = self.true_value(fact)
            if dice.point() >= source.quality:
                value = (value + dice.between(1, len(VALUES) - 1)) % len(VALUES)
            if dice.below(2):
                said.append(dice.choose(source.fillers))
            said += [self._statement(fact, source.template), VALUES[value], "."]
        metadata: dict[str, Any] = {
            "url": f"https://{source.name}.example/{number}",
            "source": source.name,
            "quality": source.quality,
        }
        return Document(f"sources:{number}", " ".join(said), "builtin:sources", metadata)

    def _statement(self, fact: int, template: int) -> str:
        subject, attribute = divmod(fact, self.attributes)
        first, last = divmod(subject, len(LAST))
        name = LAST[last].lower() + (f" {_SYLLABLES[first % 20]}{_SYLLABLES[first // 20]}" if first else "")
        return TEMPLATES[template].format(subject=name, attribute=ATTRIBUTES[attribute])

    def _question(self, fact: int) -> Document:
        question = self._statement(fact, Dice(self.seed, "sources", "question", fact).below(len(TEMPLATES)))
        answer = self.true_value(fact)
        metadata = {"question": question, "choices": list(VALUES), "answer": answer}
        return Document(f"sources:fact:{fact}", f"{question} {VALUES[answer]}", "builtin:sources", metadata)


class _Source:
    """One source; its rank decides its class, and its name, way and words come from the seed."""

    def __init__(self, rank: int, name: str, fillers: Sequence[str]) -> None:
        self.quality = QUALITIES[rank % len(QUALITIES)]
        self.template = rank // len(QUALITIES) % len(TEMPLATES)
        self.name, self.fillers = name, fillers


def _sources(seed: int) -> list[_Source]:
    """All sources, from the one that writes most to the one that writes least."""
    count = len(QUALITIES) * len(TEMPLATES)
    drawn = Dice(seed, "sources", "words").sample([a + b + "n" for a in _SYLLABLES for b in _SYLLABLES], 4 * count)
    return [_Source(rank, drawn[4 * rank], drawn[4 * rank + 1 : 4 * rank + 4]) for rank in range(count)]


def source_names(seed: int = 0) -> dict[str, float]:
    """The name and the quality of every source, from the one that writes most on."""
    return {source.name: source.quality for source in _sources(seed)}
