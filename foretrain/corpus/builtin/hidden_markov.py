"""Hidden Markov: sequences of letters from a known process, whose least possible loss is computed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from string import ascii_lowercase
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts
from foretrain.section import Count, Number

Floats = NDArray[np.float64]
_PARTS = 1_000_000
"""Probabilities are whole numbers of these parts: what is drawn does not hang on how a machine rounds."""
_TOGETHER = 256
"""Documents whose likelihoods are computed at once."""


@dataclass(frozen=True)
class Machine:
    """A hidden Markov process that begins in any state alike.

    Attributes:
        moves: [states][states], parts of the chance to go from one to another.
        shows: [states][symbols], parts of the chance to show a symbol.
    """

    moves: list[list[int]]
    shows: list[list[int]]

    def predictive(self, symbols: NDArray[np.int64]) -> Floats:
        """The chance of every symbol at every place, given those before it: [rows, length, symbols].

        Args:
            symbols: int64 [rows, length].
        """
        moves, shows = _chances(self.moves), _chances(self.shows)
        belief = np.full((len(symbols), len(moves)), 1 / len(moves))
        found = np.empty((*symbols.shape, shows.shape[1]))
        for place in range(symbols.shape[1]):
            found[:, place] = belief @ shows
            seen = belief * shows[:, symbols[:, place]].T
            belief = seen / seen.sum(1, keepdims=True) @ moves
        return found

    def nats(self, symbols: NDArray[np.int64]) -> Floats:
        """-log of the chance of each whole sequence [rows]: no model's expected loss on them is lower."""
        chances = np.take_along_axis(self.predictive(symbols), symbols[..., None], 2)[..., 0]
        return -np.log(chances).sum(1)


class HiddenMarkov(Builtin):
    """Sequences of letters from a hidden Markov process: states move at random, and each shows a letter at random.

    The chances of a state's moves and letters are drawn from a symmetric Dirichlet distribution, once for all (by
    `machine`); `seed` decides the sequences, so that another seed gives fresh ones of the same process. With the byte
    tokenizer every letter is a token.

    Metadata: `nats` (-log of the chance of the text, by the forward algorithm: the mean of `nats` / `length` over a set
    of documents is the least loss that a model of the process can have on their letters), `states` (the hidden ones, as
    numbers), `prefix` (the letters up to place `at`) and `state` (the hidden state there, such as `s3`): what a linear
    probe is asked for.
    """

    kind: Literal["hidden_markov"] = "hidden_markov"
    facts: ClassVar[Facts] = Facts(
        paper="Same Pre-training Loss, Better Downstream: Implicit Bias Matters for Language Models",
        arxiv="2210.14199",
        year=2022,
        answers="how far is a model from the least loss, and what does it know of the process behind the text?",
    )
    states: Count = Field(12, ge=2, le=1000)
    """Hidden states."""
    symbols: Count = Field(20, ge=2, le=26)
    """Letters, from a on."""
    length: Count = Field(12, gt=0)
    """Letters of a document."""
    concentration: Number = Field(0.2, gt=0)
    """Of the Dirichlet distributions: the lower, the fewer moves and letters of a state are likely."""
    at: Count = Field(6, gt=0)
    """The place, from 1 on, that `prefix` and `state` are of."""
    count: Count = Field(10_000, gt=0)
    """Number of documents."""
    machine: int = Field(0, ge=0)
    """Another number gives another process."""
    seed: int = Field(0, ge=0)
    """Another seed gives other documents of the process."""

    @model_validator(mode="after")
    def _inside(self) -> HiddenMarkov:
        if self.at > self.length:
            raise ValueError(f"at ({self.at}) should be at most the length of a document ({self.length})")
        return self

    def documents(self) -> Iterator[Document]:
        """Every document."""
        process, dice = self.process(), Dice(self.seed, "hidden_markov", "documents", self.machine)
        moves, shows = ([list(accumulate(row)) for row in rows] for rows in (process.moves, process.shows))
        for first in range(0, self.count, _TOGETHER):
            numbers = range(first, min(first + _TOGETHER, self.count))
            drawn = [self._sequence(dice, moves, shows) for _ in numbers]
            nats = process.nats(np.array([symbols for _, symbols in drawn]))
            for number, (states, symbols), least in zip(numbers, drawn, nats.tolist(), strict=True):
                text = "".join(ascii_lowercase[symbol] for symbol in symbols)
                metadata: dict[str, Any] = {
                    "nats": round(least, 4),
                    "states": states,
                    "prefix": text[: self.at],
                    "state": f"s{states[self.at - 1]}",
                }
                yield Document(f"hidden_markov:{number}", text, "builtin:hidden_markov", metadata)

    def process(self) -> Machine:
        """The process that the documents are drawn from."""
        dice = Dice(self.machine, "hidden_markov", "machine")
        moves = [_row(dice, self.states, self.concentration) for _ in range(self.states)]
        return Machine(moves, [_row(dice, self.symbols, self.concentration) for _ in range(self.states)])

    def entropy(self) -> float:
        """The least loss on the documents, in nats per letter."""
        return sum(document.metadata["nats"] for document in self.documents()) / (self.count * self.length)

    def _sequence(
        self, dice: Dice, moves: Sequence[Sequence[int]], shows: Sequence[Sequence[int]]
    ) -> tuple[list[int], list[int]]:
        state = dice.below(self.states)
        states, symbols = [], []
        for _ in range(self.length):
            states.append(state)
            symbols.append(bisect_right(shows[state], dice.below(shows[state][-1])))
            state = bisect_right(moves[state], dice.below(moves[state][-1]))
        return states, symbols


def _chances(rows: list[list[int]]) -> Floats:
    parts = np.array(rows, np.float64)
    return parts / parts.sum(1, keepdims=True)


def _row(dice: Dice, size: int, concentration: float) -> list[int]:
    """Parts of a draw from a symmetric Dirichlet distribution: independent gamma variables over their sum."""
    drawn = [_gamma(dice, concentration) for _ in range(size)]
    total = math.fsum(drawn)
    return [round(_PARTS * value / total) for value in drawn]


def _gamma(dice: Dice, shape: float) -> float:
    """A gamma variable: one exponential for each whole part of the shape, and Ahrens and Dieter's GS for the rest."""
    whole, rest = int(shape), shape - int(shape)
    found = -math.fsum(math.log(_uniform(dice)) for _ in range(whole))
    while rest > 0:
        split = 1 + rest / math.e
        place, coin = split * _uniform(dice), _uniform(dice)
        if place <= 1:
            value = place ** (1 / rest)
            accepted = coin <= math.exp(-value)
        else:
            value = -math.log((split - place) / rest)
            accepted = coin <= value ** (rest - 1)
        if accepted:
            return found + value
    return found


def _uniform(dice: Dice) -> float:
    """A number above 0 and below 1."""
    return (dice.below(1 << 52) + 0.5) / (1 << 52)
