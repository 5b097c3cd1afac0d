"""Say how often each document is to be repeated, by how many copies of it there were."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from foretrain.corpus.document import Document
from foretrain.curation.shard import read_rows
from foretrain.curation.stage import Pass, Stage, shard_file
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.files import read_json, write_json
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number


class Rehydrate(CorpusStep):
    """Documents of clusters whose fellows the filters seldom drop are worth repeating; `repeats` says how often.

    For the clusters of each size c, r_c is the share that the steps between `near_duplicates` and this one dropped, and
    g the share over all. Documents of a size with r_c >= g get the weight 1, others
    1 + (most - 1) * (g - r_c) / (g - r_min). Weights are smoothed over sizes by a running mean of 5 (the two at each
    end stay as they are) and rounded. Sizes of which there are fewer than `fewest` documents are taken together with
    the next larger ones, and the largest with those before them. The text stays in the corpus once:
    `order: {kind: repeated}` in a recipe, with `score: {kind: field, field: repeats}`, repeats it.

    Controls: `shuffled` gives the same weights to sizes in random order, `uniform` every document the mean weight.
    """

    kind: Literal["rehydrate"] = "rehydrate"
    facts: ClassVar[Facts] = Facts(
        paper="FineWeb2: One Pipeline to Scale Them All — Adapting Pre-Training Data Processing to Every Language",
        arxiv="2506.20920",
        year=2025,
        answers="how often is a document repeated? by how many copies there were, where that is a sign of quality",
    )
    needs: ClassVar[tuple[str, ...]] = ("cluster_size",)

    most: Number = Field(10, ge=1)
    """The largest weight. The paper offers 3 to 10."""
    fewest: Count = Field(100, gt=0)
    """Documents that a size has, at least, to get a weight of its own (ours: the paper names no number)."""
    column: str = Field("repeats", pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """What the score is called: its column in the corpus is `score_` and this."""
    weights: Literal["rates", "shuffled", "uniform"] = "rates"
    """By the rates, or one of the controls."""
    seed: int = Field(0, ge=0)
    """Of the control `shuffled`."""

    def gives(self) -> tuple[str, ...]:
        return (self.column,)

    def faults(self, before: Sequence[CorpusStep]) -> Iterator[str]:
        if before and "cluster_size" in before[-1].gives():
            yield (
                "rehydrate: there is no filter between `near_duplicates` and it, and what filters drop is what it "
                "goes by; put the filters after `near_duplicates`"
            )

    def passes(self, stage: Stage) -> Iterable[Pass]:
        yield Pass("sizes", stage.shards, [self.call("count_sizes", stage)])
        yield Pass("weights", 1, [self.call("find_weights", stage)])

    def count_sizes(self, stage: Stage, rank: int) -> None:
        """Leave how many documents of each size one shard has, and how many filters dropped."""
        left = Counter(int(document.scores["cluster_size"]) for document in stage.documents(rank))
        since = 1 + next(number for number, (given, _) in enumerate(stage.earlier) if "cluster_size" in given)
        gone = Counter(
            int(json.loads(row["scores"])["cluster_size"])
            for _, folder in stage.earlier[since:]
            for row in read_rows(shard_file(folder, rank, "dropped"), ["scores"])
        )
        write_json(stage.work("sizes", rank), {str(c): [left[c], gone[c]] for c in sorted({*left, *gone})})

    def find_weights(self, stage: Stage, rank: int) -> None:
        """Leave the weight of each size from which on it counts."""
        left, gone = Counter[int](), Counter[int]()
        for number in range(stage.shards):
            for size, (kept, dropped) in read_json(stage.work("sizes", number)).items():
                left[int(size)] += kept
                gone[int(size)] += dropped
        found = weights(left, gone, float(self.most), self.fewest)
        if self.weights == "shuffled":
            order = np.random.default_rng(seed_from("rehydrate", self.seed)).permutation(len(found))
            values = list(found.values())
            found = dict(zip(found, (values[place] for place in order), strict=True))
        if self.weights == "uniform":
            mean = sum(count * _weight(found, size) for size, count in left.items()) / max(sum(left.values()), 1)
            found = {1: mean}
        write_json(stage.work("weights.json"), {str(size): weight for size, weight in found.items()})

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        found = {int(size): float(weight) for size, weight in read_json(stage.work("weights.json")).items()}
        for document in documents:
            weight = _weight(found, int(document.scores["cluster_size"]))
            scores = {**document.scores, self.column: float(weight)}
            yield Document(document.id, document.text, document.source, document.metadata, scores)


def weights(left: Mapping[int, int], gone: Mapping[int, int], most: float, fewest: int) -> dict[int, float]:
    """Weights by the size of cluster from which on each counts.

    Args:
        left: documents that filters left, by size of cluster.
        gone: documents that they dropped.
        most: the largest weight.
        fewest: documents that a size needs for a weight of its own.
    """
    bins: list[tuple[int, int, int]] = []  # first size, documents, dropped
    for size in sorted({*left, *gone}):
        count, dropped = left.get(size, 0) + gone.get(size, 0), gone.get(size, 0)
        if bins and bins[-1][1] < fewest:
            first, before, dropped_before = bins.pop()
            bins.append((first, before + count, dropped_before + dropped))
        else:
            bins.append((size, count, dropped))
    if len(bins) > 1 and bins[-1][1] < fewest:
        _, count, dropped = bins.pop()
        first, before, dropped_before = bins.pop()
        bins.append((first, before + count, dropped_before + dropped))
    rates = np.array([dropped / count for _, count, dropped in bins])
    overall = sum(dropped for *_, dropped in bins) / max(sum(count for _, count, _ in bins), 1)
    below = overall - rates
    raw = 1 + (most - 1) * np.maximum(below, 0) / max(below.max(initial=0), 1e-12)
    smooth = raw.copy()
    if len(raw) >= 5:
        smooth[2:-2] = np.convolve(raw, np.full(5, 0.2), "valid")
    return {first: float(max(1, round(value))) for (first, *_), value in zip(bins, smooth.tolist(), strict=True)}


def _weight(found: Mapping[int, float], size: int) -> float:
    """The weight of a size: that of the largest key up to it."""
    keys = [key for key in found if key <= size]
    return found[max(keys)] if keys else found[min(found)]
