"""Rehydration: weights by the rates at which filters drop clusters of a size, against the card's formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretrain.corpus.document import Document
from foretrain.curation.build_file import make_build
from foretrain.curation.stage import Stage, settle
from foretrain.curation.steps.base import Dropped
from foretrain.curation.steps.rehydrate import Rehydrate, weights
from foretrain.errors import RequestError
from tests.curation.stages import run_step, stage_of


def stated(left: dict[int, int], gone: dict[int, int], most: float) -> dict[int, int]:
    """The same by loops, for sizes that all have documents enough."""
    sizes = sorted({*left, *gone})
    rate = {c: gone.get(c, 0) / (left.get(c, 0) + gone.get(c, 0)) for c in sizes}
    overall = sum(gone.values()) / (sum(left.values()) + sum(gone.values()))
    least = min(rate.values())
    raw = [1.0 if rate[c] >= overall else 1 + (most - 1) * (rate[c] - overall) / (least - overall) for c in sizes]
    smooth = list(raw)
    for place in range(2, len(raw) - 2):
        smooth[place] = sum(raw[place - 2 : place + 3]) / 5
    return {c: max(1, round(value)) for c, value in zip(sizes, smooth, strict=True)}


counts = st.dictionaries(st.integers(1, 30), st.integers(100, 400), min_size=1, max_size=12)


@given(counts, st.data())
def test_weights_are_those_of_the_formula(left: dict[int, int], data: st.DataObject) -> None:
    gone = {c: data.draw(st.integers(0, 400)) for c in left}
    most = data.draw(st.sampled_from([1.0, 3.0, 10.0]))
    found = weights(left, gone, most, 100)
    expected = stated(left, gone, most)
    # Python rounds halves to even; what lies on a half may fall either way by the last bit.
    assert all(abs(found[c] - expected[c]) <= 1 for c in expected) and list(found) == list(expected)
    assert sum(found[c] != expected[c] for c in expected) <= 1
    assert all(1 <= weight <= most for weight in found.values())


def test_small_bins_are_taken_together() -> None:
    left, gone = {1: 500, 2: 30, 3: 40, 4: 60, 9: 5}, {1: 500, 2: 0, 3: 0, 4: 0}
    assert weights(left, gone, 10, 100) == {1: 1.0, 2: 10.0}, "2, 3 and 4 are one bin, and 9 joins it"


def staged(folder: Path) -> Stage:
    """Sizes 1 and 3, of which a filter dropped half and none."""
    left = [Document(f"{c}:{i}", "text", "t", scores={"cluster_size": c}) for c in (1.0, 3.0) for i in range(4)]
    gone = [Document(f"{i}", "text", "t", scores={"cluster_size": 1.0}) for i in range(4)]
    dedup = Stage(folder / "dedup", None, 1, 0)
    settle(dedup, 0, [*left, *gone, Dropped(Document("x", "t", "t", scores={"cluster_size": 3.0}), "nearly the same")])
    quality = Stage(folder / "quality", None, 1, 0)
    settle(quality, 0, [*left, *(Dropped(document, "bad") for document in gone)])
    earlier = (((), folder / "none"), (("cluster_size",), dedup.folder), ((), quality.folder))
    return stage_of(folder, [left], earlier)


def test_documents_get_the_weight_of_their_size(tmp_path: Path) -> None:
    left, _ = run_step(Rehydrate(fewest=1, most=5), staged(tmp_path))
    assert [document.scores["repeats"] for document in left[0]] == [1.0] * 4 + [5.0] * 4


def test_the_controls(tmp_path: Path) -> None:
    left, _ = run_step(Rehydrate(fewest=1, most=5, weights="uniform"), staged(tmp_path / "uniform"))
    assert {document.scores["repeats"] for document in left[0]} == {3.0}
    found = set()
    for seed in range(6):
        left, _ = run_step(Rehydrate(fewest=1, most=5, weights="shuffled", seed=seed), staged(tmp_path / str(seed)))
        found.add(tuple(sorted({(d.scores["cluster_size"], d.scores["repeats"]) for d in left[0]})))
    assert found == {((1.0, 1.0), (3.0, 5.0)), ((1.0, 5.0), (3.0, 1.0))}, "the same weights, in any order"
    assert np.isfinite([document.scores["repeats"] for document in left[0]]).all()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (["rehydrate"], "no step gives it; put near_duplicates before"),
        (["rehydrate", "near_duplicates"], "near_duplicates gives it only after that; put near_duplicates before"),
        (["near_duplicates", "rehydrate"], "put the filters after `near_duplicates`"),
        (["near_duplicates", "near_duplicates"], "gives the score 'cluster_size', which near_duplicates has given"),
    ],
)
def test_impossible_orders_are_refused(steps: list[str], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_build({"read": "x.txt", "steps": steps})


def test_each_impossible_place_is_a_fault_of_its_own() -> None:
    with pytest.raises(
        RequestError, match=r"has 2 faults:\n  - steps\[0\].*\n  - steps\[2\].*near_duplicates has given"
    ):
        make_build({"read": "x.txt", "steps": ["rehydrate", "near_duplicates", "near_duplicates"]})
