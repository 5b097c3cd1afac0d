"""Near duplicates: planted ones are found and others are not, sizes of clusters are kept, estimates are estimates."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretrain.corpus.document import Document
from foretrain.curation.steps import _duplicates, near_duplicates
from foretrain.curation.steps.near_duplicates import NearDuplicates, _candidates
from tests.curation.planted import documents, pairs
from tests.curation.stages import run_step, sifted, stage_of

Pairs = set[tuple[int, int]]


def clusters(folder: Path, texts: list[tuple[str, int]], **settings: Any) -> tuple[Pairs, Pairs]:
    """Pairs of one cluster, as found and as planted; the documents lie in two shards."""
    planted = [Document(str(i), text, "test", {"of": of}) for i, (text, of) in enumerate(texts)]
    shards = [planted[0::2], planted[1::2]]
    joined: list[list[int]] = []

    def leave(stage: Any, sizes: Any, groups: Any, weights: Any) -> None:
        joined.append(groups.tolist())
        _duplicates.leave(stage, sizes, groups, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "leave", leave)
        run_step(NearDuplicates(**settings), stage_of(folder, shards))
    return pairs(joined[0]), pairs([document.metadata["of"] for shard in shards for document in shard])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_edited_copies_are_found_and_documents_of_the_same_subject_left_apart(seed: int, tmp_path: Path) -> None:
    found, planted = clusters(tmp_path, documents(120, 3, (0.05, 0.15), seed))
    assert len(planted) == 60 * 6
    assert len(found & planted) / len(planted) >= 0.95
    assert len(found & planted) / len(found) >= 0.95


def test_short_documents_with_the_most_edits_are_found_too(tmp_path: Path) -> None:
    found, planted = clusters(tmp_path, documents(120, 3, (0.15, 0.15), 3, words=(50, 80)))
    assert len(found & planted) >= 0.95 * max(len(planted), len(found))


def test_pairs_that_are_not_verified_join_documents_of_a_subject(tmp_path: Path) -> None:
    texts = documents(120, 3, (0.05, 0.15), 0)
    found, planted = clusters(tmp_path / "all", texts, similarity=0)
    assert len(found & planted) / len(found) < 0.8, "or the threshold would not be needed"
    found, planted = clusters(tmp_path / "fineweb", texts, similarity=0, ngram=5, buckets=14, hashes=8)
    assert len(found & planted) / len(planted) < 0.3, "or the defaults could be FineWeb's"


def test_the_share_of_equal_hashes_estimates_jaccard_similarity(tmp_path: Path) -> None:
    texts = documents(40, 2, (0.05, 0.15), 5)
    shards = [[Document(str(i), text, "test") for i, (text, _) in enumerate(texts)][rank::2] for rank in range(2)]
    stage, step = stage_of(tmp_path, shards), NearDuplicates()
    run_step(step, stage)
    sizes = [len(shard) for shard in shards]
    found = _candidates(stage, np.array([0, *np.cumsum(sizes)]))
    joined = [document.text for shard in shards for document in shard]
    exact = np.array([_jaccard(joined[a], joined[b]) for a, b in found])
    estimates = step._similarities(stage, sizes, found)
    assert len(found) > 30
    error = np.sqrt(exact * (1 - exact) / (step.buckets * step.hashes)) + 1e-9
    # Candidates have at least one bucket in common, so their estimates lie a little high.
    assert abs(float(((estimates - exact) / error).mean())) < 1.5
    assert float(np.abs(estimates - exact).max()) < 0.2


def _jaccard(first: str, second: str) -> float:
    one, two = (set(pairwise(words)) for words in (first.split(), second.split()))
    return len(one & two) / len(one | two)


def test_the_first_of_a_cluster_stays_and_knows_how_many_there_were(tmp_path: Path) -> None:
    dice = random.Random(1)
    words = [f"w{dice.randrange(500)}" for _ in range(120)]
    copies = [" ".join([*words[:i], "changed", *words[i + 1 :]]) for i in (10, 50, 90)]
    other = " ".join(f"v{dice.randrange(500)}" for _ in range(120))
    shards = [
        [Document("a", copies[0], "test", scores={"copies": 5.0}), Document("b", other, "test")],
        [
            Document("c", copies[1], "test", scores={"copies": 2.0}),
            Document("d", copies[2], "test"),
            Document("tiny", "x", "test"),
        ],
        [],
        [Document("e", "short", "test")],
    ]
    left, counts = run_step(NearDuplicates(), stage_of(tmp_path, shards))
    assert [[document.id for document in shard] for shard in left] == [["a", "b"], ["tiny"], [], ["e"]]
    assert [document.scores["cluster_size"] for shard in left for document in shard] == [8.0, 1.0, 1.0, 1.0]
    assert counts.dropped == {"nearly the same text": 2}
    assert {example["detail"] for example in counts.examples} == {"one of 8"}


def test_numbers_capitals_and_punctuation_make_no_difference(tmp_path: Path) -> None:
    text = "On 12 May the committee met in Geneva, and 31 members voted for the motion; nobody spoke against it."
    same = re.sub(r"[,;]", "", text.upper()).replace("12", "13")
    left, _ = sifted(NearDuplicates(), tmp_path, text, same, "Something else was said about it in the evening by all.")
    assert [document.id for document in left] == ["0", "2"]


def test_another_seed_finds_the_same(tmp_path: Path) -> None:
    texts = documents(40, 2, (0.05, 0.1), 7)
    assert clusters(tmp_path / "one", texts) == clusters(tmp_path / "two", texts, seed=9)
