"""LEGO chains: a controlled corpus whose skills build on each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from string import ascii_lowercase
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count


class Lego(Builtin):
    """Chains of bits, such as `Input: b = not a, a = val 1, c = val b. Output: b = 0.` as a text.

    A chain of `length` variables begins with a bit (`a = val 1`); every further variable equals the one before (`val`)
    or its opposite (`not`). The clauses stand in random order, and one variable is asked for: skill s asks for the
    s-th of the chain, so it needs the skills before it. Metadata: `skill` (from 1), `question` (up to `sign`) and
    `answer` (`0` or `1`). No text comes twice.
    """

    kind: Literal["lego"] = "lego"
    facts: ClassVar[Facts] = Facts(
        paper="Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models",
        arxiv="2307.14430",
        year=2023,
        answers="skills with a known graph of prerequisites?",
    )
    count: Count = Field(10_000, gt=0)
    """Number of chains."""
    length: int = Field(5, ge=1, le=13)
    """Variables in a chain; as many skills."""
    skill: int | None = Field(None, ge=1)
    """Ask for this variable of the chain only (for one domain a skill); unset: for any, equally often."""
    shuffled: bool = True
    """Whether the clauses stand in random order; in that of the chain, skills are learned in fewer steps."""
    sign: str = "="
    """What stands between the variable asked for and its bit; another one than in the clauses (`->`) marks answers."""
    seed: int = Field(0, ge=0)
    """Another seed gives other chains."""

    @model_validator(mode="after")
    def _possible(self) -> Lego:
        if self.skill is not None and self.skill > self.length:
            raise ValueError(f"skill ({self.skill}) should be at most length ({self.length})")
        skills = 1 if self.skill is not None else self.length
        orders = math.factorial(self.length) if self.shuffled else 1
        different = math.perm(len(ascii_lowercase), self.length) * 2**self.length * orders * skills
        if self.count > different // 2:
            raise ValueError(f"count ({self.count}) should be at most {different // 2}, half of all different chains")
        return self

    def documents(self) -> Iterator[Document]:
        """Every chain."""
        seen: set[int] = set()
        attempt = 0
        while len(seen) < self.count:
            dice = Dice(self.seed, "lego", attempt)
            attempt += 1
            skill = self.skill or dice.between(1, self.length)
            question, answer = self._chain(dice, skill)
            known = len(seen)
            seen.add(seed_from(question))
            if len(seen) > known:
                metadata = {"skill": skill, "question": question, "answer": answer}
                yield Document(f"lego:{known}", f"{question} {answer}.", "builtin:lego", metadata)

    def _chain(self, dice: Dice, skill: int) -> tuple[str, str]:
        names = dice.sample(ascii_lowercase, self.length)
        bits = [dice.below(2) for _ in names]
        clauses = [f"{names[0]} = val {bits[0]}"]
        for i in range(1, self.length):
            clauses.append(f"{names[i]} = {'val' if bits[i] == bits[i - 1] else 'not'} {names[i - 1]}")
        given = dice.shuffle(clauses) if self.shuffled else clauses
        return f"Input: {', '.join(given)}. Output: {names[skill - 1]} {self.sign}", str(bits[skill - 1])
