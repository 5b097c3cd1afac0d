"""What the two ways to find duplicates share: from groups of documents to which stays and how many there were."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from foretrain.corpus.document import Document
from foretrain.curation.stage import Stage
from foretrain.curation.steps.base import Dropped

Ints = NDArray[np.int64]


def leave(stage: Stage, sizes: list[int], groups: Ints, weights: Ints) -> None:
    """Leave for every document of every shard the size of its group, negative where the document is not to stay.

    The first document of a group stays: the one of the lowest shard, and in it the first.

    Args:
        stage: whose work it is.
        sizes: documents of each shard.
        groups: the number of each document's group, over all shards in their order.
        weights: how many documents each stands for.
    """
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    counts = np.bincount(numbers, weights).astype(np.int64)[numbers]
    stays = np.zeros(len(groups), np.bool_)
    stays[first] = True
    signed = np.where(stays, counts, -counts)
    for rank, part in enumerate(np.split(signed, np.cumsum(sizes)[:-1])):
        write_array(stage, "groups", rank, part)


def write_array(stage: Stage, name: str, rank: int, values: NDArray) -> None:
    """Leave an array for later passes."""
    with open(stage.work(name, rank), "wb") as file:
        np.save(file, values)


def read_arrays(stage: Stage, name: str) -> list[NDArray]:
    """The arrays of all shards that an earlier pass left."""
    return [read_array(stage, name, rank) for rank in range(stage.shards)]


def read_array(stage: Stage, name: str, rank: int) -> NDArray:
    """The array of one shard."""
    found: NDArray = np.load(stage.work(name, rank), allow_pickle=False)
    return found


def first_of_each(
    documents: Iterator[Document], stage: Stage, rank: int, score: str, reason: str
) -> Iterator[Document | Dropped]:
    """The documents that stay, each with the size of its group as a score; and the others."""
    for document, size in zip(documents, read_array(stage, "groups", rank).tolist(), strict=True):
        scored = Document(
            document.id,
            document.text,
            document.source,
            document.metadata,
            {**document.scores, score: float(abs(size))},
        )
        yield scored if size > 0 else Dropped(scored, reason, f"one of {abs(size)}")
