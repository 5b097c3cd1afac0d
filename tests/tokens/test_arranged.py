"""Documents in another order, or some of them: the same as if they had been written so."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.tokens.arranged import Arranged
from foretrain.tokens.selection import Keep, ranked
from foretrain.tokens.shards import SetWriter, TokenSet

MakeSet = Callable[..., TokenSet]
LENGTHS = [3, 5, 1, 8, 2, 12, 4, 1, 1, 6]


def _written(base: TokenSet, lengths: list[int], documents: list[int], folder: Path) -> TokenSet:
    """The documents written into shards of their own, one after the other."""
    firsts = np.cumsum([0, *lengths])
    with SetWriter(folder, "train", 1 << 16) as writer:
        for number in documents:
            ids = base.read(int(firsts[number]), lengths[number])
            writer.append(ids, 2 * lengths[number], f"doc:{number}")
    return TokenSet(writer.paths)


@pytest.mark.parametrize("shard_tokens", [1 << 30, 9])
@pytest.mark.parametrize("documents", [list(range(10)), [7, 3, 9, 0, 5, 1, 8, 2, 6, 4], [5, 2], [2], [3, 3, 0]])
def test_it_is_what_these_documents_written_in_this_order_are(
    make_set: MakeSet, tmp_path: Path, documents: list[int], shard_tokens: int
) -> None:
    base = make_set(LENGTHS, shard_tokens=shard_tokens)
    found = Arranged(base, np.array(documents, np.int64))
    wanted = _written(base, LENGTHS, documents, tmp_path / "wanted")
    assert (found.tokens, found.documents, found.bytes) == (wanted.tokens, wanted.documents, wanted.bytes)
    starts = np.arange(-3, 2 * wanted.tokens, dtype=np.int64)
    for length in (1, 4, 3 * wanted.tokens):
        assert np.array_equal(found.gather(starts, length), wanted.gather(starts, length))
        assert np.array_equal(found.segments(starts, length), wanted.segments(starts, length))
        assert found.segments(starts, length).dtype == np.int32
        for start in starts.tolist():
            assert found.names(start, length) == wanted.names(start, length)
    for ours, theirs in zip(
        found.windows(9, 8, rows=2, limit=15, segments=True),
        wanted.windows(9, 8, rows=2, limit=15, segments=True),
        strict=True,
    ):
        assert all(torch.equal(ours[name], theirs[name]) for name in (*ours, *theirs))
    assert found.restated(1.5) == wanted.restated(1.5)


def test_its_hash_is_of_what_it_holds_and_in_which_order(make_set: MakeSet) -> None:
    base = make_set(LENGTHS)
    orders = ([0, 1, 2], [2, 1, 0], [0, 1], list(range(10)))
    assert len({Arranged(base, np.array(order)).hash for order in orders} | {base.hash}) == 5
    assert Arranged(base, np.array([1, 0])).hash == Arranged(base, np.array([1, 0])).hash


def test_tokens_are_not_copied(make_set: MakeSet) -> None:
    base = make_set([5000] * 200)
    order = np.arange(200)[::-1].copy()
    tracemalloc.start()
    try:
        found = Arranged(base, order)
        found.gather(np.arange(0, 100_000, 5000), 50)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000 and found.tokens == 1_000_000


# Which documents ----------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, -1.5]), min_size=1, max_size=60))
def test_ranked_sorts_and_shuffles_what_is_equal(scores: list[float]) -> None:
    order = ranked(np.array(scores)).tolist()
    assert sorted(order) == list(range(len(scores)))
    assert [scores[place] for place in order] == sorted(scores)


def test_equal_scores_do_not_stand_in_the_order_of_the_file() -> None:
    order = ranked(np.zeros(100))
    assert not np.array_equal(order, np.arange(100)) and abs(np.corrcoef(order, np.arange(100))[0, 1]) < 0.3


SIZES = np.array([4, 1, 3, 2, 6, 4])
SCORES = np.array([0.5, 2.0, -1.0, 0.1, 9.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"tokens": 3, "best": "lowest"}, [2]),
        ({"tokens": 4, "best": "lowest"}, [2, 3]),
        ({"tokens": 6, "best": "highest"}, [4]),
        ({"tokens": 7, "best": "highest"}, [1, 4]),
        ({"share": 0.45, "best": "lowest"}, [0, 2, 3]),
        ({"share": 0.46, "best": "lowest"}, [0, 2, 3, 5]),
        ({"tokens": 20, "best": "highest"}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_best_are_kept_until_they_hold_what_is_asked_for(settings: dict[str, object], kept: list[int]) -> None:
    assert Keep.model_validate(settings).chosen(SIZES, SCORES, 0).tolist() == kept


def test_any_are_kept_by_the_seed() -> None:
    sizes = np.full(200, 5)
    keep = Keep.model_validate({"share": 0.1, "best": "random"})
    drawn = [keep.chosen(sizes, None, seed).tolist() for seed in range(3)]
    assert all(len(set(each)) == 20 and each == sorted(each) for each in drawn)
    assert drawn[0] != drawn[1] != drawn[2] and keep.chosen(sizes, None, 1).tolist() == drawn[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"best": "lowest"}, "either `share` or `tokens`"),
        ({"best": "lowest", "share": 0.1, "tokens": 5}, "either `share` or `tokens`"),
        ({"share": 0.1}, "best"),
        ({"share": 1.0, "best": "lowest"}, "less than 1"),
    ],
)
def test_what_is_kept_is_said_once(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Keep.model_validate(settings)
