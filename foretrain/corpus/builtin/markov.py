"""Markov chains of order 2: text whose entropy is known, in clusters of similar domains."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number

Floats = NDArray[np.float64]

SYMBOLS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


class Markov(Builtin):
    """Text in which every symbol depends on the two before it, by a table of probabilities.

    A domain is a member of a cluster: its table is (1 - `own`) times that of the cluster and `own` times its own; each
    row of either is drawn from a Dirichlet distribution. Members of one cluster are similar, clusters are not. With
    `own: 0` the domain is the cluster itself.

    No model can predict better than the entropy rate, in nats per symbol; it is in the metadata of each document
    (`entropy`), beside `cluster` and `member`, and `Markov(...).entropy()` gives it. Documents begin with two symbols
    as the chain has them in the long run. A model has to learn `symbols`^2 rows, so small ones need few symbols.
    """

    kind: Literal["markov"] = "markov"
    facts: ClassVar[Facts] = Facts(
        paper="Investigating Continual Pretraining in Large Language Models: Insights and Implications (its question; "
        "the domains are ours)",
        arxiv="2402.17400",
        year=2024,
        answers="domains of known similarity and entropy?",
    )
    cluster: int = Field(0, ge=0)
    """Which cluster the domain is in."""
    member: int = Field(0, ge=0)
    """Which of its members it is."""
    own: Number = Field(0.4, ge=0, le=1)
    """Share of the member's own table."""
    symbols: int = Field(64, ge=2, le=len(SYMBOLS))
    """Size of the alphabet: letters, digits, `-` and `_`, from `a` on."""
    concentration: Number = Field(0.1, gt=0, le=1)
    """Of the Dirichlet distribution: the smaller, the fewer symbols follow two others."""
    length: Count = Field(256, ge=2)
    """Symbols of a document."""
    count: Count = Field(1000, gt=0)
    """Number of documents."""
    seed: int = Field(0, ge=0)
    """Another seed gives other tables, and other documents."""

    def documents(self) -> Iterator[Document]:
        """Every document."""
        table = self.table()
        pairs = stationary(table)
        start = np.cumsum(pairs.ravel()).tolist()
        rows = np.cumsum(table, -1).reshape(-1, self.symbols).tolist()
        name = f"markov:{self.cluster}:{self.member}"
        metadata: dict[str, Any] = {"cluster": self.cluster, "member": self.member, "entropy": _entropy(table, pairs)}
        for number in range(self.count):
            dice = Dice(self.seed, "markov", self.cluster, self.member, number)
            pair = _draw(start, dice)
            text = [*divmod(pair, self.symbols)]
            while len(text) < self.length:
                symbol = _draw(rows[pair], dice)
                pair = pair % self.symbols * self.symbols + symbol
                text.append(symbol)
            yield Document(f"{name}:{number}", "".join(SYMBOLS[each] for each in text), "builtin:markov", metadata)

    def table(self) -> Floats:
        """Probabilities [symbol before the last, last symbol, next symbol]."""
        mine = (self.symbols, self.concentration)
        table = (1 - self.own) * _dirichlet(*mine, seed_from(self.seed, "markov", self.cluster))
        if self.own:
            table = table + self.own * _dirichlet(*mine, seed_from(self.seed, "markov", self.cluster, self.member))
        return table

    def entropy(self) -> float:
        """The entropy rate: nats per symbol that no model can do better than in the long run."""
        table = self.table()
        return _entropy(table, stationary(table))


def stationary(table: Floats) -> Floats:
    """How often each pair of symbols comes in the long run, [symbol, next symbol], summing to 1."""
    pairs = np.full(table.shape[:2], 1 / table.shape[0] ** 2)
    for _ in range(10_000):
        # The mean of two steps, so that a chain that alternates settles too.
        following = (pairs + np.einsum("ab,abc->bc", pairs, table)) / 2
        if np.abs(following - pairs).sum() < 1e-13:
            break
        pairs = following
    return following / following.sum()


def _entropy(table: Floats, pairs: Floats) -> float:
    logs = np.log(table, where=table > 0, out=np.zeros_like(table))
    return float(-(pairs[..., None] * table * logs).sum())


def _draw(edges: list[float], dice: Dice) -> int:
    return bisect_right(edges, dice.point() * edges[-1])


@lru_cache(maxsize=64)
def _dirichlet(symbols: int, concentration: float, seed: int) -> Floats:
    """Rows from a symmetric Dirichlet distribution, [symbols, symbols, symbols].

    Normalised gamma variates by the rejection method of Ahrens and Dieter (1974), which needs uniform numbers only:
    numpy promises the raw bits of Philox for ever, and no distribution made of them.
    """
    bits = np.random.Philox(key=seed)
    count, edge = symbols**3, 1 + concentration / math.e
    found, open_ = np.zeros(count), np.arange(count)
    while len(open_):
        first, second = ((bits.random_raw(len(open_)) >> np.uint64(11)) * 2.0**-53 for _ in range(2))
        first, second = first * edge, 1 - second  # `second` in (0, 1]
        low = first <= 1
        small = np.where(low, first, 1.0) ** (1 / concentration)
        large = -np.log(np.where(low, 1.0, (edge - first)) / np.where(low, 1.0, concentration))
        taken = np.where(low, second <= np.exp(-small), second <= np.maximum(large, 1e-300) ** (concentration - 1))
        found[open_[taken]] = np.where(low, small, large)[taken]
        open_ = open_[~taken]
    rows = found.reshape(symbols, symbols, symbols)
    return rows / rows.sum(-1, keepdims=True)
