"""How surprising a document is to an n-gram model of reference text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretrain.corpus.document import Document
from foretrain.corpus.scorers._pieces import grouped
from foretrain.corpus.scorers.base import Scorer
from foretrain.corpus.source import open_domain
from foretrain.corpus.where import Wanted
from foretrain.parts import Facts
from foretrain.section import Count, DataPath

if TYPE_CHECKING:
    from foretrain.corpus.source import Source

PIECE = 1 << 22
"""Bytes of reference text that are counted at once."""

Keys = NDArray[np.uint64]


class NgramPerplexity(Scorer):
    """Perplexity per byte under a byte n-gram model with interpolated Witten-Bell smoothing.

    The model is fitted on `reference`, text of the quality that is looked for: the documents of the lowest perplexity
    are those most like it. A byte after a context of n - 1 has (count + T * p) / (total + T), where T is the number of
    different bytes that followed the context in the reference and p the byte's probability after the context without
    its first byte; below the empty context all 256 are equally likely. Being per byte, it favours no length.
    """

    kind: Literal["ngram_perplexity"] = "ngram_perplexity"
    facts: ClassVar[Facts] = Facts(
        paper="CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data",
        arxiv="1911.00359",
        year=2019,
        answers="how good is a document? as like some good text as its n-grams are",
        overhead="about 1 s per 2 MB of text, once",
    )

    reference: DataPath | list[DataPath]
    """The text that the model is fitted on: paths as those of a domain."""
    order: int = Field(5, ge=1, le=8)
    """Bytes of an n-gram: the context is one less."""
    text: str = "text"
    """The field of the reference that holds its text, or a template."""
    where: dict[str, Wanted] = {}
    """Which documents of the reference are read, as for a domain."""
    limit: Count | None = Field(None, gt=0)
    """Read at most this many documents of it."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` or `hub:` reference."""

    def content(self) -> Any:
        """Its order, and the reference's content in place of its name."""
        return {"kind": self.kind, "format": 1, "order": self.order, "reference": self._source().fingerprint()}

    def scores(self, documents: Iterable[Document]) -> Iterator[float]:
        model = Ngrams(self.order, (document.text.encode() for document in self._source().documents()))
        for document in documents:
            yield float(np.exp(-model.log_probabilities(document.text.encode()).mean()))

    def _source(self) -> Source:
        from foretrain.recipe import Domain  # the recipe's schema has scorers in it

        given = {"text": self.text, "where": self.where, "limit": self.limit, "options": self.options}
        return open_domain(Domain.model_validate({"path": self.reference, "validation": 0.0, **given}))


class Ngrams:
    """Counts of the byte n-grams of some texts, up to an order, and probabilities from them."""

    def __init__(self, order: int, texts: Iterable[bytes]) -> None:
        self.order = order
        counts = [_Counts() for _ in range(order)]
        for piece in grouped(texts, PIECE):
            for size, counted in enumerate(counts, 1):
                counted.add(np.concatenate([_grams(text, size) for text in piece]))
        self._grams = [(counted.keys, counted.counts) for counted in counts]
        self._contexts = [_contexts(counted.keys, counted.counts) for counted in counts]

    def log_probabilities(self, text: bytes) -> NDArray[np.float64]:
        """The natural logarithm of each byte's probability after the bytes before it."""
        chances = np.full(len(text), 1 / 256)
        for size in range(1, min(self.order, len(text)) + 1):
            grams = _grams(text, size)
            counts = _found(*self._grams[size - 1], grams)
            keys, totals, kinds = self._contexts[size - 1]
            total, kind = _found(keys, totals, grams >> np.uint64(8)), _found(keys, kinds, grams >> np.uint64(8))
            shorter = chances[size - 1 :]
            # A context that was never seen says nothing, so the shorter one's word stands.
            chances[size - 1 :] = np.where(total > 0, (counts + kind * shorter) / np.maximum(total + kind, 1), shorter)
        return np.log(chances)


class _Counts:
    """How often each key came, with keys in order."""

    def __init__(self) -> None:
        self.keys, self.counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def add(self, keys: Keys) -> None:
        fresh, counts = np.unique(keys, return_counts=True)
        self.keys, places = np.unique(np.concatenate([self.keys, fresh]), return_inverse=True)
        summed = np.bincount(places, np.concatenate([self.counts, counts]), len(self.keys))
        self.counts = summed.astype(np.int64)


def _grams(text: bytes, size: int) -> Keys:
    """Every stretch of `size` bytes as one number, the last byte lowest."""
    values = np.frombuffer(text, np.uint8).astype(np.uint64)
    count = max(len(values) - size + 1, 0)
    keys = np.zeros(count, np.uint64)
    for place in range(size):
        keys = (keys << np.uint64(8)) | values[place : place + count]
    return keys


def _contexts(keys: Keys, counts: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64], NDArray[np.int64]]:
    """The contexts of n-grams, in order: how often each was followed by a byte, and by how many different ones."""
    contexts, places, kinds = np.unique(keys >> np.uint64(8), return_inverse=True, return_counts=True)
    return contexts, np.bincount(places, counts, len(contexts)).astype(np.int64), kinds.astype(np.int64)


def _found(keys: Keys, values: NDArray[np.int64], wanted: Keys) -> NDArray[np.int64]:
    """The values of keys; 0 where there is no such key."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
