"""The planted crawl, and a corpus that a build makes of it where a recipe asks for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from foretrain.corpus.builtin.crawl import Crawl
from foretrain.corpus.builtin.curated import Curated

SMALL: dict[str, Any] = {"good": 24, "junk": 24, "boilerplate": 2, "length": 500}


def test_what_is_planted_is_as_it_says() -> None:
    found = list(Crawl(**SMALL).documents())
    counted = Counter(document.metadata["original"] for document in found)
    assert all(counted[document.metadata["original"]] == document.metadata["copies"] for document in found)
    sizes: dict[str, list[int]] = {sort: [] for sort in ("good", "salad", "loop")}
    for name, count in counted.items():
        sizes[name.partition(":")[0]].append(count)
    assert len(sizes["good"]) == 24 and all(2 <= count <= 30 for count in sizes["good"])
    assert sorted(Counter(count > 1 for count in sizes["salad"] + sizes["loop"]).items()) == [(False, 24), (True, 2)]
    assert all(100 <= count <= 150 for count in sizes["salad"] + sizes["loop"] if count > 1)
    assert all(len(document.text) <= 1.2 * 500 for document in found)
    clean = {document.text[:60] for document in Crawl(**SMALL, part="clean").documents()}
    assert clean and not clean & {document.text[:60] for document in found}
    assert [document.text for document in Crawl(**SMALL, seed=1).documents()] != [document.text for document in found]


BUILD: dict[str, Any] = {
    "read": {"path": "builtin:crawl", "options": SMALL},
    "steps": [{"kind": "near_duplicates"}, "gopher_repetition", {"kind": "rehydrate", "fewest": 8}],
}


def test_a_build_finds_what_is_planted() -> None:
    found = list(Curated(build=BUILD).documents())
    by_original = Counter(document.metadata["original"] for document in found)
    assert set(by_original.values()) == {1}, "one of each cluster is left"
    assert all(document.scores["cluster_size"] == document.metadata["copies"] for document in found)
    assert {document.metadata["sort"] for document in found} == {"good", "salad"}, "loops are dropped"
    weights: dict[str, set[float]] = {}
    for document in found:
        weights.setdefault(document.metadata["sort"], set()).add(document.scores["repeats"])
    assert min(weights["good"]) > 3 and 1.0 in weights["salad"]
    again = list(Curated(build=BUILD).documents())
    assert [document.text for document in again] == [document.text for document in found]


def test_a_build_that_is_wrong_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="did you mean 'near_duplicates'"):
        Curated(build={"read": "builtin:crawl", "steps": ["near_duplicate"]})
    changed = {**BUILD, "steps": BUILD["steps"][:1]}
    assert Curated(build=BUILD).sources_hash() != Curated(build=changed).sources_hash()
