"""Overlap: does a document of the corpus hold an item of a feedback set or a task?

The items, the small side, are indexed once; documents stream past. Text is compared as words: runs of letters and
digits, case folded, so that punctuation, white space and capitals don't hide a copy. An item overlaps a document when
at least half of its distinct 13-word sequences occur there (13 is the length of GPT-3's contamination check, arXiv
2005.14165; asking for half of them is ours: a single one is often a common phrase or a shared instruction); an item of
6 to 12 words when all of them occur there in a row. Shorter items stand in much innocent text and cannot be judged:
`OverlapIndex.unjudged` counts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from foretrain.corpus.document import Document

WORDS: Final = 13
"""Length of the sequences that are compared."""
FEWEST: Final = 6
"""Words below which an item cannot be judged."""
SHARE: Final = 0.5
"""Share of an item's sequences in one document from which on the two overlap."""

Ids = NDArray[np.uint64]

_CHUNK: Final = 1 << 15
"""Words hashed at once: what is worked on stays in the cache, and memory does not grow with the document."""
_BITS: Final = 22
_HIGH: Final = np.uint64(64 - _BITS)
_LOW: Final = np.uint64(64 - 2 * _BITS)
_MASK: Final = np.uint64((1 << _BITS) - 1)
_WORD = re.compile(r"[^\W_]+")
_ASCII = str.maketrans({i: chr(i).lower() if chr(i).isalnum() else " " for i in range(128)})
_BASE: Final = 0x9E3779B97F4A7C15
_INVERSE: Final = pow(_BASE, -1, 1 << 64)


def words(text: str) -> list[str]:
    """The words of a text as they are compared: runs of letters and digits, case folded."""
    if text.isascii():
        return text.translate(_ASCII).split()
    return _WORD.findall(text.casefold())


@dataclass(frozen=True, slots=True)
class Overlap:
    """An item that a document of the corpus holds.

    Attributes:
        items: name of the set of items.
        number: which item of the set, from 0.
        domain: domain of the document.
        document: id of the document.
        share: share of the item's word sequences that occur in the document, from 0.5 to 1.
    """

    items: str
    number: int
    domain: str
    document: str
    share: float


class OverlapIndex:
    """Finds the items of named sets in documents. It can be pickled; a check changes nothing in it.

    A sequence is known by a 64-bit hash: for a million sequences and a billion words of corpus, the chance of a single
    false match anywhere is about 1 in 20,000.

    Args:
        items: the texts of every set, by the name of the set.

    Attributes:
        judged: by set, how many items are looked for.
        unjudged: by set, how many are too short (fewer than 6 words) to be.
    """

    def __init__(self, items: Mapping[str, Iterable[str]]) -> None:
        self.judged: dict[str, int] = {}
        self.unjudged: dict[str, int] = {}
        self._vocabulary: dict[str, int] = {}
        self._owners: list[tuple[str, int]] = []
        sizes: list[int] = []
        hashes: list[Ids] = []
        lengths: set[int] = set()
        for name, texts in items.items():
            self.judged[name] = self.unjudged[name] = 0
            for number, text in enumerate(texts):
                listed = words(text)
                if len(listed) < FEWEST:
                    self.unjudged[name] += 1
                    continue
                ids = np.array([self._vocabulary.setdefault(w, len(self._vocabulary) + 1) for w in listed], np.uint64)
                length = min(len(listed), WORDS)
                hashes.append(np.unique(np.concatenate([_sequences(sums, length) for sums in _prefix_sums(ids)])))
                lengths.add(length)
                self._owners.append((name, number))
                sizes.append(len(hashes[-1]))
                self.judged[name] += 1
        self._sizes = np.array(sizes, np.int64)
        self._lengths = sorted(lengths)
        self._table = _Table(hashes)

    def check(self, domain: str, document: Document) -> list[Overlap]:
        """The items that a document holds, in the order of the sets.

        Args:
            domain: name of the document's domain, for the result.
            document: the document.
        """
        if not self._lengths:
            return []
        listed = words(document.text)
        ids = np.fromiter(map(self._vocabulary.get, listed, repeat(0)), np.uint64, count=len(listed))
        rows = [
            self._table.find(np.concatenate([_sequences(sums, length) for length in self._lengths]))
            for sums in _prefix_sums(ids)
        ]
        if not any(map(len, rows)):
            return []
        owners, counts = np.unique(self._table.owners_of(np.unique(np.concatenate(rows))), return_counts=True)
        parts = counts / self._sizes[owners]
        return [
            Overlap(*self._owners[int(owner)], domain, document.id, float(part))
            for owner, part in zip(owners, parts, strict=True)
            if part >= SHARE
        ]


class _Table:
    """Hashes of sequences, sorted, and the items (numbers of the list `hashes`) that each belongs to."""

    def __init__(self, hashes: Sequence[Ids]) -> None:
        joined = np.concatenate([np.zeros(0, np.uint64), *hashes])
        owners = np.repeat(np.arange(len(hashes)), [len(entry) for entry in hashes])
        order = np.argsort(joined, kind="stable")
        self._hashes, starts = np.unique(joined[order], return_index=True)
        self._starts = np.append(starts, len(order))
        self._owners = owners[order]
        # Nearly all sequences of a document are unknown: two looks into small tables of bits spare them the search.
        self._first = _bits(self._hashes >> _HIGH)
        self._second = _bits((self._hashes >> _LOW) & _MASK)

    def find(self, hashes: Ids) -> NDArray[np.int64]:
        """Row numbers of those hashes that are in the table."""
        likely = hashes[self._first[hashes >> _HIGH]]
        likely = likely[self._second[(likely >> _LOW) & _MASK]]
        if not len(likely):
            return np.zeros(0, np.int64)
        rows = np.searchsorted(self._hashes, likely)
        rows[rows == len(self._hashes)] = 0
        return rows[self._hashes[rows] == likely]

    def owners_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The items of some rows, one entry for each pair of row and item."""
        return np.concatenate([self._owners[self._starts[row] : self._starts[row + 1]] for row in rows])


def _bits(places: Ids) -> NDArray[np.bool_]:
    bits = np.zeros(1 << _BITS, np.bool_)
    bits[places] = True
    return bits


def _scatter(ids: Ids) -> Ids:
    """Word numbers as 64 well-mixed bits (the finalizer of SplitMix64)."""
    mixed = ids * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _powers(base: int, count: int) -> Ids:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


_UP: Final = _powers(_BASE, _CHUNK + WORDS + 1)
_DOWN: Final = _powers(_INVERSE, _CHUNK + WORDS + 1)


def _prefix_sums(ids: Ids) -> Iterator[Ids]:
    """For every chunk of word numbers (and the 12 after it): sums of the mixed numbers times base^-i, mod 2^64."""
    for start in range(0, len(ids), _CHUNK):
        values = _scatter(ids[start : start + _CHUNK + WORDS - 1])
        sums = np.zeros(len(values) + 1, np.uint64)
        np.cumsum(values * _DOWN[: len(values)], out=sums[1:])
        yield sums


def _sequences(sums: Ids, length: int) -> Ids:
    """Hashes of all sequences of `length` words that begin in a chunk.

    The hash of a sequence is the sum of its mixed numbers times base^place, modulo 2^64: the difference of two prefix
    sums, shifted back to the sequence's own beginning; the cost does not depend on `length`.
    """
    stretches = (sums[length:] - sums[:-length])[:_CHUNK] if len(sums) > length else sums[:0]
    return stretches * _UP[: len(stretches)]


@dataclass(frozen=True, slots=True)
class SharedItem:
    """An item that stands in two sets, word for word.

    Attributes:
        first: name of the one set, and `first_number` the item's number in it, from 0.
        second: name of the other set, and `second_number` the item's number in it.
    """

    first: str
    first_number: int
    second: str
    second_number: int


def shared_items(first: Mapping[str, Iterable[str]], second: Mapping[str, Iterable[str]]) -> list[SharedItem]:
    """The items that stand in a set of `first` and in a set of `second` (feedback and tasks): all words equal."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for name, texts in first.items():
        for number, text in enumerate(texts):
            places.setdefault(tuple(words(text)), []).append((name, number))
    return [
        SharedItem(*place, name, number)
        for name, texts in second.items()
        for number, text in enumerate(texts)
        if (listed := tuple(words(text)))
        for place in places.get(listed, ())
    ]


def check_overlap(items: Mapping[str, Iterable[str]], documents: Mapping[str, Iterable[Document]]) -> list[Overlap]:
    """All overlaps of named sets of items with the documents of named domains, in one pass over the documents."""
    index = OverlapIndex(items)
    return [
        found for domain, stream in documents.items() for document in stream for found in index.check(domain, document)
    ]


def describe_overlaps(overlaps: Sequence[Overlap], shown: int = 3) -> str:
    """One paragraph on what overlaps: how many items of each set, and a few of them; empty where nothing does."""
    if not overlaps:
        return ""
    best: dict[tuple[str, int], Overlap] = {}
    for overlap in overlaps:
        key = overlap.items, overlap.number
        if key not in best or best[key].share < overlap.share:
            best[key] = overlap
    sets: dict[str, list[Overlap]] = {}
    for overlap in best.values():
        sets.setdefault(overlap.items, []).append(overlap)
    parts = []
    for name, found in sets.items():
        listing = ", ".join(
            f"item {entry.number + 1} in document {entry.document} of '{entry.domain}' ({entry.share:.0%})"
            for entry in found[:shown]
        )
        more = f" and {len(found) - shown} more" if len(found) > shown else ""
        parts.append(f"{len(found)} item{'s' if len(found) > 1 else ''} of {name}: {listing}{more}")
    return (
        "The corpus holds items it is to be judged or steered by, so the result would mean nothing: "
        f"{'; '.join(parts)}. "
        f"(In brackets: how much of the item's {WORDS}-word sequences the document holds.)"
    )


def describe_shared(shared: Sequence[SharedItem], shown: int = 3) -> str:
    """One paragraph on items that stand in two sets; empty where none does."""
    if not shared:
        return ""
    listing = ", ".join(
        f"item {entry.first_number + 1} of {entry.first} is item {entry.second_number + 1} of {entry.second}"
        for entry in shared[:shown]
    )
    more = f", and {len(shared) - shown} more" if len(shared) > shown else ""
    return (
        f"Feedback and tasks share {len(shared)} item{'s' if len(shared) > 1 else ''}, so the run would be "
        f"judged by what steered it: {listing}{more}."
    )
