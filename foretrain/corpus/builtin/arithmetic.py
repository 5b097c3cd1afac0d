"""Arithmetic word problems with worked solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin._names import FIRST, THINGS
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count


class Arithmetic(Builtin):
    """Word problems of several steps; each solution shows every step, and its arithmetic is exact.

    The text is `Question: ...`, a new line, and `Answer: ...`, which ends with `The answer is N.` Metadata: `question`,
    `solution` (the steps, without the last sentence), `answer` (the number as text) and `steps`. Document `i` depends
    on `seed` and `i` alone, so a longer corpus begins with the shorter one.
    """

    kind: Literal["arithmetic"] = "arithmetic"
    facts: ClassVar[Facts] = Facts(
        paper="Training Verifiers to Solve Math Word Problems (the shape of its problems; all text here is generated)",
        arxiv="2110.14168",
        year=2021,
        answers="problems with known answers, at any size and difficulty?",
    )
    count: Count = Field(10_000, gt=0)
    """Number of problems."""
    fewest_steps: int = Field(2, ge=1, le=20)
    """Steps of the easiest problems."""
    most_steps: int = Field(4, ge=1, le=20)
    """Steps of the hardest ones; between the two, every number is equally frequent."""
    largest: Count = Field(50, ge=4, le=1_000_000)
    """Largest number that a problem begins with or adds; results may become larger."""
    seed: int = Field(0, ge=0)
    """Another seed gives other problems."""

    @model_validator(mode="after")
    def _range(self) -> Arithmetic:
        if self.fewest_steps > self.most_steps:
            raise ValueError(f"fewest_steps ({self.fewest_steps}) should be at most most_steps ({self.most_steps})")
        return self

    def documents(self) -> Iterator[Document]:
        """Every problem."""
        for number in range(self.count):
            dice = Dice(self.seed, "arithmetic", number)
            steps = dice.between(self.fewest_steps, self.most_steps)
            question, solution, answer = self._problem(dice, steps)
            text = f"Question: {question}\nAnswer: {solution} The answer is {answer}."
            metadata = {"question": question, "solution": solution, "answer": str(answer), "steps": steps}
            yield Document(f"arithmetic:{number}", text, "builtin:arithmetic", metadata)

    def _problem(self, dice: Dice, steps: int) -> tuple[str, str, int]:
        name, other = dice.sample(FIRST, 2)
        story = _Story(dice, self.largest, name, other, dice.choose(THINGS), dice.between(4, self.largest))
        told = [dice.choose(_BEGINNINGS).format(n=name, t=story.things, x=story.number)]
        worked: list[str] = []
        sold = steps > 1 and dice.below(4) == 0
        for _ in range(steps - sold):
            sentence, work = story.next()
            told.append(sentence)
            worked.append(work)
        if sold:
            price = dice.between(2, 9)
            total = story.number * price
            told.append(
                f"Then {name} sells all of the {story.things} for {price} dollars each. "
                f"How many dollars does {name} get?"
            )
            worked.append(f"The {story.things} bring {story.number} * {price} = {total} dollars.")
            return " ".join(told), " ".join(worked), total
        told.append(dice.choose(_ENDINGS).format(n=name, t=story.things))
        return " ".join(told), " ".join(worked), story.number


_BEGINNINGS = (
    "{n} has {x} {t}.",
    "{n} starts the day with {x} {t}.",
    "There are {x} {t} in the box that belongs to {n}.",
    "{n} keeps {x} {t} in a drawer.",
    "On Monday {n} counts {x} {t}.",
)
_ENDINGS = (
    "How many {t} does {n} have now?",
    "How many {t} does {n} have in the end?",
    "How many {t} are there now?",
    "In the end, how many {t} does {n} have?",
)
_MORE = (
    "{n} buys {a} more {t}.",
    "{o} gives {n} {a} {t}.",
    "{n} finds {a} {t} at home.",
    "{n} wins {a} {t} in a game.",
    "{n} gets {a} {t} as a present.",
)
_FEWER = (
    "{n} gives {a} {t} to {o}.",
    "{n} loses {a} of the {t}.",
    "{n} sells {a} of the {t}.",
    "{o} borrows {a} {t} from {n}.",
    "{n} uses up {a} of the {t}.",
)
_PACKS_MORE = (
    "{n} buys {k} bags with {a} {t} each.",
    "On each of {k} days {n} gets {a} {t}.",
    "{k} friends bring {n} {a} {t} each.",
)
_PACKS_FEWER = (
    "{n} fills {k} bags with {a} {t} each and gives the bags to {o}.",
    "{n} sends {a} {t} to each of {k} cousins.",
    "On each of {k} days {n} loses {a} {t}.",
)
_TIMES = (
    "A week later {n} has {k} times as many {t}.",
    "{n} trades cleverly and ends up with {k} times as many {t}.",
)
_SHARES = (
    "{n} divides the {t} equally among {k} boxes and keeps only one box.",
    "{n} and friends, {k} people in all, share the {t} equally.",
)
_HALVES = ("{n} gives half of the {t} away.", "Half of the {t} get lost.")


@dataclass
class _Story:
    """A problem as it is told: who has how many of what. `number` stays from 2 on, so that plurals are right."""

    dice: Dice
    largest: int
    name: str
    other: str
    things: str
    number: int

    def next(self) -> tuple[str, str]:
        """One more step: its sentence, and its worked line; `number` becomes the step's result."""
        possible: list[Callable[[], tuple[tuple[str, ...], str, int, int]]] = [self._more, self._packs_more]
        if self.number >= 4:
            possible.append(self._fewer)
        if self.number >= 6:
            possible.append(self._packs_fewer)
        if self.number <= 10 * self.largest:
            possible.append(self._times)
        if self.number >= 4 and self.number % 2 == 0:
            possible.append(self._half)
        if self._divisors():
            possible.append(self._share)
        templates, work, several, amount = self.dice.choose(possible)()
        sentence = self.dice.choose(templates)
        return sentence.format(n=self.name, o=self.other, t=self.things, k=several, a=amount), work

    def _divisors(self) -> list[int]:
        return [k for k in range(3, 10) if self.number % k == 0 and self.number // k >= 2]

    def _more(self) -> tuple[tuple[str, ...], str, int, int]:
        amount, before = self.dice.between(2, self.largest), self.number
        self.number += amount
        return _MORE, f"That makes {before} + {amount} = {self.number} {self.things}.", 0, amount

    def _fewer(self) -> tuple[tuple[str, ...], str, int, int]:
        amount, before = self.dice.between(2, min(self.number - 2, self.largest)), self.number
        self.number -= amount
        return _FEWER, f"That leaves {before} - {amount} = {self.number} {self.things}.", 0, amount

    def _packs_more(self) -> tuple[tuple[str, ...], str, int, int]:
        several, amount = self.dice.between(2, 6), self.dice.between(2, max(2, self.largest // 4))
        pack, before = several * amount, self.number
        self.number += pack
        return (
            _PACKS_MORE,
            f"{several} times {amount} is {several} * {amount} = {pack}, "
            f"which makes {before} + {pack} = {self.number} {self.things}.",
            several,
            amount,
        )

    def _packs_fewer(self) -> tuple[tuple[str, ...], str, int, int]:
        several = self.dice.between(2, min(6, (self.number - 2) // 2))
        amount = self.dice.between(2, min((self.number - 2) // several, max(2, self.largest // 4)))
        pack, before = several * amount, self.number
        self.number -= pack
        return (
            _PACKS_FEWER,
            f"{several} times {amount} is {several} * {amount} = {pack}, "
            f"which leaves {before} - {pack} = {self.number} {self.things}.",
            several,
            amount,
        )

    def _times(self) -> tuple[tuple[str, ...], str, int, int]:
        several, before = self.dice.between(2, 5), self.number
        self.number *= several
        return _TIMES, f"That makes {before} * {several} = {self.number} {self.things}.", several, 0

    def _half(self) -> tuple[tuple[str, ...], str, int, int]:
        before = self.number
        self.number //= 2
        return _HALVES, f"Half of them are {before} / 2 = {self.number} {self.things}.", 0, 0

    def _share(self) -> tuple[tuple[str, ...], str, int, int]:
        several, before = self.dice.choose(self._divisors()), self.number
        self.number //= several
        return _SHARES, f"Each share is {before} / {several} = {self.number} {self.things}.", several, 0
