"""Splits: which documents train, which online methods may look at, and which judge; decided by content alone.

A document's key is a hash of its text (or of its group), and its place is that key as a number from 0 to 1. So the
split of a document depends on nothing but itself and the shares: not on the order of the files, on other documents,
on the machine or on the seed; exact duplicates fall on the same side; and a larger share only adds documents.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from foretrain.corpus.document import Document
from foretrain.errors import RequestError
from foretrain.hashing import hash_data, seed_from

if TYPE_CHECKING:
    from foretrain.recipe import Domain

Split = Literal["train", "steer", "validation"]
"""`train`: learned from; `steer`: what online methods may look at; `validation`: what judges."""


def split_key(document: Document, group: str | None = None) -> int:
    """128 bits that documents share when they must stay together.

    They are made from the value of the `group` field where one is named and the document has one (not null), and
    otherwise from the text with every run of white space as one space. Nothing else is normalised: case folding and
    Unicode forms depend on the version of Python's tables, and a split must not.
    """
    value = None if group is None else document.metadata.get(group)
    if value is None:
        name, data = b"text", " ".join(document.text.split())
    else:
        name, data = b"group", str(value) if isinstance(value, str | int) else hash_data(value)
    return int.from_bytes(hashlib.blake2b(data.encode(), digest_size=16, person=name).digest(), "big")


def position(key: int) -> float:
    """The place of a key: uniform in [0, 1), from its first 53 bits."""
    return (key >> 75) / 2**53


def part_position(key: int) -> float:
    """The place of a key among the parts of a domain's training documents: uniform in [0, 1), and of its own."""
    return (seed_from("part", f"{key:x}") >> 10) / 2**53


def shares(domain: Domain) -> tuple[float, float]:
    """The shares of `validation` and `steer` that come out of the domain's own documents (0 where a path is given)."""
    validation = 0.0 if isinstance(domain.validation, str) else domain.validation
    steer = 0.0 if isinstance(domain.steer, str) else domain.steer
    return validation, steer


def side(key: int, domain: Domain) -> Split:
    """The split of a key: the lowest places are validation, the next ones steer, the rest train."""
    validation, steer = shares(domain)
    place = position(key)
    return "validation" if place < validation else "steer" if place < validation + steer else "train"


def assign(document: Document, domain: Domain) -> Split:
    """The split of one document by its content and the domain's shares.

    `Source.splits` is what a run uses: it adds explicit paths, and `settle` for small corpora.
    """
    return side(split_key(document, domain.group), domain)


def settle(keys: Iterable[int], domain: Domain) -> dict[int, Split]:
    """The split of every key of a small corpus, with none left empty that was asked for.

    Two percent of forty documents are often none at all. Then the key whose place comes nearest moves: the lowest
    place of all to validation, the next one to steer, the highest to train. It is the same key on every machine and
    in every order of the documents.

    Raises:
        RequestError: there are fewer distinct documents (or groups) than splits.
    """
    ordered = sorted(set(keys))  # By key is by place: the splits are three stretches of this list.
    validation, steer = shares(domain)
    asked = ["train", *(["validation"] if validation else []), *(["steer"] if steer else [])]
    if len(ordered) < len(asked):
        what = f"{len(ordered)} " + (f"value of '{domain.group}'" if domain.group else "distinct document")
        what += "" if len(ordered) == 1 else "s"
        raise RequestError(
            f"The corpus {describe(domain)} holds too little for the splits {', '.join(asked)}: {what}. "
            "Give it more text, set 'validation: 0', or name a path for validation."
        )
    places = [position(key) for key in ordered]
    first = max(bisect_left(places, validation), int(validation > 0))
    second = max(bisect_left(places, validation + steer), first + int(steer > 0))
    second = min(second, len(ordered) - 1)
    first = min(first, second - int(steer > 0))
    return {key: "validation" if i < first else "steer" if i < second else "train" for i, key in enumerate(ordered)}


def describe(domain: Domain) -> str:
    """The path or paths of a domain, for messages."""
    if isinstance(domain.path, str):
        return domain.path
    return domain.path[0] if len(domain.path) == 1 else f"{domain.path[0]} (and {len(domain.path) - 1} more)"
