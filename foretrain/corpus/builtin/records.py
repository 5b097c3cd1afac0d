"""Records: a few facts about a person as fields, and as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import CITIES, COMPANIES, FIRST
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count

TEMPLATES = (
    "{name} is {age} years old and lives in {city}.",
    "{name}, aged {age}, lives in {city}.",
    "At {age}, {name} works for {firm}.",
    "{name} of {city} works for {firm}.",
    "The {age}-year-old {name} works for {firm} in {city}.",
    "{name} lives in {city} and works for {firm}.",
    "{firm} in {city} employs {name}.",
    "In {city} lives {name}, who is {age}.",
)
"""What is said of a record; which fields a record has decides, so that there is one right sentence."""
FIELDS = ("name", "age", "city", "firm")


class Records(Builtin):
    """Records of a person, each with one right sentence.

    A line is `style=1; name=Ann; age=33; city=Rome -> Ann, aged 33, lives in Rome.` The first field names the template
    of the sentence (from 0), and the others are those that it uses, in one order. No two records are the same; `skip`
    leaves out the first ones that the seed gives. Metadata: `record` (up to the arrow) and `sentence`.
    """

    kind: Literal["records"] = "records"
    facts: ClassVar[Facts] = Facts(
        paper="SPDF: Sparse Pre-training and Dense Fine-tuning for Large Language Models",
        arxiv="2303.10464",
        year=2023,
        answers="does a model learn to say in a sentence what a record holds?",
    )
    count: Count = Field(4000, gt=0, le=100_000)
    """Number of records."""
    skip: Count = Field(0, ge=0, le=100_000)
    """Records to leave out first."""
    seed: int = Field(0, ge=0)
    """Another seed gives other records."""

    def documents(self) -> Iterator[Document]:
        """Every record."""
        dice, seen = Dice(self.seed, "records"), set[str]()
        while len(seen) < self.skip + self.count:
            style = dice.below(len(TEMPLATES))
            values = {
                "name": dice.choose(FIRST),
                "age": str(dice.between(18, 89)),
                "city": dice.choose(CITIES),
                "firm": dice.choose(COMPANIES),
            }
            used = [field for field in FIELDS if f"{{{field}}}" in TEMPLATES[style]]
            record = "; ".join([f"style={style}", *(f"{field}={values[field]}" for field in used)]) + " ->"
            if record in seen:
                continue
            seen.add(record)
            if len(seen) > self.skip:
                sentence = TEMPLATES[style].format(**values)
                metadata = {"record": record, "sentence": sentence}
                yield Document(f"records:{record}", f"{record} {sentence}", "builtin:records", metadata)
