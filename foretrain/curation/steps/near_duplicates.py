"""Keep one of each cluster of documents that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foretrain.corpus.document import Document
from foretrain.curation.needed import require
from foretrain.curation.stage import Pass, Stage
from foretrain.curation.steps._duplicates import first_of_each, leave, read_arrays, write_array
from foretrain.curation.steps._words import word_tokenizer
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.parts import Facts
from foretrain.section import Number

Ints = NDArray[np.int64]
_PAIRS = 1 << 20


class NearDuplicates(CorpusStep):
    """MinHash: documents that share most of their n-grams of words are one cluster, and its first document stays.

    Each document has `buckets` times `hashes` least hash values of its n-grams (lower case, without punctuation,
    accents and the values of numbers). Two are a pair where all hashes of a bucket are equal: with a Jaccard similarity
    s that happens with probability 1 - (1 - s^hashes)^buckets. A pair counts where the share of equal hashes, which is
    an estimate of s, is at least `similarity`; clusters are what pairs connect. Every document that stays has the score
    `cluster_size`: how many documents its cluster had (copies dropped before count in).

    The defaults find documents of which up to 15 % of the words were replaced and leave apart those that only share a
    subject: of word pairs, a document with a share e of its words replaced keeps (1 - e)^2, which at 15 % is s = 0.57.
    FineWeb's own are `ngram: 5, buckets: 14, hashes: 8, similarity: 0`, for web pages that differ in a header or a
    date: 15 % of words spread evenly are s = 0.29 there, of which it finds one in a thousand.

    datatrove computes the hashes and the pairs, shard by shard and bucket by bucket. Pairs are verified and joined
    here: datatrove takes every pair for true, keeps whichever document its union made the root, and leaves out cluster
    sizes for a shard of which nothing is dropped.
    """

    kind: Literal["near_duplicates"] = "near_duplicates"
    facts: ClassVar[Facts] = Facts(
        paper="FineWeb2: One Pipeline to Scale Them All — Adapting Pre-Training Data Processing to Every Language",
        arxiv="2506.20920",
        year=2025,
        answers="which documents are dropped? nearly the same ones, and how many there were is kept",
        overhead="two passes over the text, `buckets` over the hashes",
    )

    ngram: int = Field(2, ge=1)
    """Words of an n-gram."""
    buckets: int = Field(48, ge=1)
    """More of them find more pairs."""
    hashes: int = Field(4, ge=1)
    """Hashes of a bucket: more of them find fewer pairs."""
    similarity: Number = Field(0.42, ge=0, le=1)
    """Share of all hashes that a pair has in common, at least; 0 takes all pairs, as FineWeb does."""
    language: str = "plain"
    """How words are found, as for the quality filters."""
    seed: int = Field(1, ge=1)
    """Decides the hash functions."""

    def gives(self) -> tuple[str, ...]:
        return ("cluster_size",)

    def check(self) -> None:
        """See that datatrove and the packages of the language are there."""
        require("datatrove.pipeline.dedup.minhash")
        word_tokenizer(self.language)

    def passes(self, stage: Stage) -> Iterable[Pass]:
        minhash, config = require("datatrove.pipeline.dedup.minhash"), self._config()
        signatures, pairs = str(stage.work("signatures")), str(stage.work("pairs"))
        hashing = minhash.MinhashDedupSignature(signatures, config, language=word_tokenizer(self.language))
        matching = minhash.MinhashDedupBuckets(signatures, pairs, config=config, lines_to_buffer=1000)
        yield Pass("signatures", stage.shards, [Feed(stage), hashing])
        yield Pass("pairs", self.buckets, [matching])
        yield Pass("clusters", 1, [self.call("find_clusters", stage)])

    def _config(self) -> Any:
        # SHA-1 in place of datatrove's xxhash: what it does there fails with the present release of that package.
        hashing = require("datatrove.utils.hashing").HashConfig(precision=64, hash_fc="sha1")
        return require("datatrove.pipeline.dedup.minhash").MinhashConfig(
            n_grams=self.ngram,
            num_buckets=self.buckets,
            hashes_per_bucket=self.hashes,
            seed=self.seed,
            hash_config=hashing,
        )

    def find_clusters(self, stage: Stage, rank: int) -> None:
        """Leave for each document the size of its cluster, and whether it is the first."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        weights = read_arrays(stage, "weights")
        sizes = [len(each) for each in weights]
        total = sum(sizes)
        pairs = _candidates(stage, np.concatenate([[0], np.cumsum(sizes)]))
        if self.similarity:
            pairs = pairs[self._similarities(stage, sizes, pairs) >= self.similarity]
        links = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (total, total))
        groups = connected_components(links, directed=False)[1].astype(np.int64)
        leave(stage, sizes, groups, np.concatenate(weights))

    def _similarities(self, stage: Stage, sizes: list[int], pairs: Ints) -> NDArray[np.float64]:
        """The share of equal hashes of each pair; the hashes of one bucket are in memory at a time."""
        fields = np.dtype([("hashes", "<u8", (self.hashes,)), ("document", "<u4")])
        equal = np.zeros(len(pairs), np.int64)
        for bucket in range(self.buckets):
            hashes = np.zeros((sum(sizes), self.hashes), np.uint64)
            first = 0
            for rank, size in enumerate(sizes):
                path = stage.work("signatures") / f"bucket_{bucket:03d}" / f"{rank:05d}.minhash.sig"
                rows = np.fromfile(path, fields)
                hashes[first + rows["document"].astype(np.int64)] = rows["hashes"]
                first += size
            for begin in range(0, len(pairs), _PAIRS):
                left, right = pairs[begin : begin + _PAIRS].T
                equal[begin : begin + _PAIRS] += (hashes[left] == hashes[right]).sum(1)
        return equal / (self.buckets * self.hashes)

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        return first_of_each(documents, stage, rank, "cluster_size", "nearly the same text")


def _candidates(stage: Stage, firsts: Ints) -> Ints:
    """The pairs of all buckets, each once, as numbers of documents over all shards, [pairs, 2]."""
    files = sorted(stage.work("pairs").glob("*.dups"))
    found = [np.fromfile(file, "<u4").reshape(-1, 2, 2).astype(np.int64) for file in files]
    joined = np.concatenate([np.zeros((0, 2, 2), np.int64), *found])
    numbers = np.sort(firsts[joined[..., 0]] + joined[..., 1], axis=1)
    return np.unique(numbers, axis=0)


@dataclass(frozen=True)
class Feed:
    """The documents of a shard as datatrove's; how many documents each stands for is left beside."""

    stage: Stage

    def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Any]:
        theirs = require("datatrove.data").Document
        weights = []
        for document in self.stage.documents(rank):
            weights.append(int(document.scores.get("copies", 1)))
            yield theirs(text=document.text, id=document.id)
        write_array(self.stage, "weights", rank, np.array(weights, np.int64))
