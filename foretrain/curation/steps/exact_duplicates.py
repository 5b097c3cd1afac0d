"""Keep one of each set of documents with the same text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

import numpy as np

from foretrain.corpus.document import Document
from foretrain.corpus.splits import split_key
from foretrain.curation.stage import Pass, Stage
from foretrain.curation.steps._duplicates import first_of_each, leave, read_arrays, write_array
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.parts import Facts


class ExactDuplicates(CorpusStep):
    """Of documents that differ in white space at most, the first stays, with the score `copies`: how many there were.

    Text is known by the 128-bit hash by which documents get their split, so what is one text here is one text there.
    """

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    facts: ClassVar[Facts] = Facts(answers="which documents are dropped? copies of one before", overhead="one pass")

    def gives(self) -> tuple[str, ...]:
        return ("copies",)

    def passes(self, stage: Stage) -> Iterable[Pass]:
        yield Pass("hashes", stage.shards, [self.call("hash_shard", stage)])
        yield Pass("copies", 1, [self.call("find_copies", stage)])

    def hash_shard(self, stage: Stage, rank: int) -> None:
        """Leave the hashes of a shard's texts."""
        keys = b"".join(split_key(document).to_bytes(16, "big") for document in stage.documents(rank))
        write_array(stage, "hashes", rank, np.frombuffer(keys, "V16"))

    def find_copies(self, stage: Stage, rank: int) -> None:
        """Leave for each document how many have its text, and whether it is the first."""
        shards = read_arrays(stage, "hashes")
        _, groups = np.unique(np.concatenate(shards), return_inverse=True)
        leave(stage, [len(shard) for shard in shards], groups.astype(np.int64), np.ones(len(groups), np.int64))

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        return first_of_each(documents, stage, rank, "copies", "the same text")
