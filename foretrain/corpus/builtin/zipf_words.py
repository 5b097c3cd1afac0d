"""Zipf words: a first-order chain over words of known frequencies, whose entropy is known."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
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

LINKS = 2
"""Permutations that say which classes a class leads to."""


@dataclass(frozen=True)
class Chain:
    """A chain over words through their classes.

    Attributes:
        frequencies: [words], of each word in the long run; the most frequent first.
        classes: int64 [words], the class of each word.
        moves: [classes, classes], probabilities of the next word's class.
    """

    frequencies: Floats
    classes: NDArray[np.int64]
    moves: Floats

    @cached_property
    def shares(self) -> Floats:
        """How often each class comes in the long run."""
        return np.bincount(self.classes, self.frequencies, len(self.moves)).astype(np.float64)

    def following(self) -> Floats:
        """Probabilities [classes, words] of the next word after a word of each class."""
        return self.moves[:, self.classes] * (self.frequencies / self.shares[self.classes])

    def entropy(self) -> float:
        """Nats per word that no model can do better than in the long run."""
        chances = self.following()
        logs = np.log(chances, where=chances > 0, out=np.zeros_like(chances))
        return float(-(self.shares[:, None] * chances * logs).sum())


class ZipfWords(Builtin):
    """Words whose frequencies fall as rank^-`exponent`, each depending on the class of the word before it.

    Every word belongs to one of some latent classes, drawn by the seed. A share `memory` of the moves between classes
    goes along a sparse random graph, by the rule of Metropolis, so that the classes are as frequent as their words are;
    the others go anywhere, by frequency. So the frequencies hold exactly, whatever the graph: `exponent: 0` is the same
    world with all words alike. What the next word hangs on is a matrix of rank `classes`.

    A word is two letters. A BPE of enough ids (about 420 more than there are words) makes a token of each. The entropy,
    in nats per word, is in the metadata of each document, and `ZipfWords(...).chain().entropy()`.
    """

    kind: Literal["zipf_words"] = "zipf_words"
    facts: ClassVar[Facts] = Facts(
        paper="Tracing the Representation Geometry of Language Models from Pretraining to Post-training (its toy; the "
        "details are ours)",
        arxiv="2509.23024",
        year=2025,
        answers="what does a skewed distribution of words do to a model?",
    )
    words: Count = Field(512, ge=2, le=26**2)
    """Size of the vocabulary."""
    classes: Count = Field(16, ge=1)
    """Latent classes; a word's class is all that the next word hangs on."""
    exponent: Number = Field(1.0, ge=0)
    """Of the law of frequencies: 1 as Zipf's, 0 for words that are all alike."""
    memory: Number = Field(0.8, ge=0, le=1)
    """Share of the moves that follow the graph; 0: words are independent."""
    length: Count = Field(128, ge=2)
    """Words of a document."""
    count: Count = Field(1000, gt=0)
    """Number of documents."""
    seed: int = Field(0, ge=0)
    """Another seed gives other classes, another graph and other documents."""

    @model_validator(mode="after")
    def _enough_words(self) -> ZipfWords:
        if self.classes > self.words:
            raise ValueError(f"classes: {self.words} words cannot be in {self.classes} classes; have fewer classes")
        return self

    def documents(self) -> Iterator[Document]:
        """Every document."""
        chain = self.chain()
        start = np.cumsum(chain.frequencies).tolist()
        after = np.cumsum(chain.following(), 1).tolist()
        spelled = self.spelling()
        metadata: dict[str, Any] = {"entropy": chain.entropy()}
        for number in range(self.count):
            dice, edges, text = Dice(self.seed, "zipf", "text", number), start, ""
            for _ in range(self.length):
                word = bisect_right(edges, dice.point() * edges[-1])
                text += f" {spelled[word]}"
                edges = after[int(chain.classes[word])]
            yield Document(f"zipf:{number}", text, "builtin:zipf_words", metadata)

    def chain(self) -> Chain:
        """The process that the documents are drawn from."""
        dice = Dice(self.seed, "zipf", "chain")
        frequencies = np.arange(1, self.words + 1, dtype=np.float64) ** -self.exponent
        frequencies /= frequencies.sum()
        classes = np.array(dice.shuffle([number % self.classes for number in range(self.words)]), np.int64)
        shares = np.bincount(classes, frequencies, self.classes)
        proposed = np.zeros((self.classes, self.classes))
        for _ in range(LINKS):
            along = dice.shuffle(range(self.classes))
            for here, there in enumerate(along):  # both ways alike, which Metropolis asks for
                proposed[here, there] += 0.5 / LINKS
                proposed[there, here] += 0.5 / LINKS
        moves = proposed * np.minimum(1, shares[None, :] / shares[:, None])
        moves[np.diag_indices(self.classes)] += 1 - moves.sum(1)
        return Chain(frequencies, classes, self.memory * moves + (1 - self.memory) * shares)

    def spelling(self) -> list[str]:
        """How each word is written."""
        pairs = [first + second for first in ascii_lowercase for second in ascii_lowercase]
        return Dice(self.seed, "zipf", "spelling").sample(pairs, self.words)
