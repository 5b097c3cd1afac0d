from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.tokens.order import Limited, ShuffledWindows
from foretrain.tokens.shards import TokenSet
from foretrain.tokens.stream import Stream

MakeSet = Callable[..., TokenSet]
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


@pytest.fixture
def sets(make_set: MakeSet) -> dict[str, TokenSet]:
    rng = np.random.default_rng(1)
    return {name: make_set(rng.integers(1, 40, size).tolist()) for name, size in (("a", 60), ("b", 90), ("c", 30))}


def _stream(sets: dict[str, TokenSet], **options: Any) -> Stream:
    settings_: dict[str, Any] = dict(window=17, stride=16, rows=8, seed=3, segments=True)
    return Stream(sets, options.pop("weights", WEIGHTS), **{**settings_, **options})


def _same(left: Batch, right: Batch) -> bool:
    names = set(left) == set(right) and left.step == right.step and torch.equal(left.positions, right.positions)
    return names and all(torch.equal(left[name], right[name]) for name in left)


def test_a_batch(sets: dict[str, TokenSet]) -> None:
    stream = _stream(sets)
    stream.advance(5)
    batch = stream.batch()
    assert batch["tokens"].dtype == torch.int64 and batch["tokens"].shape == (8, 17)
    assert batch["segments"].dtype == torch.int32 and batch["segments"].shape == (8, 17)
    assert batch["domain"].dtype == torch.int64 and batch.domains == ("a", "b", "c")
    assert batch.positions.tolist() == list(range(40, 48)) and batch.step == 5 and batch.seed == 3
    for row in range(8):
        found = sets[batch.domains[int(batch["domain"][row])]]
        start = int(batch["tokens"][row, 0])  # in these sets token i has id i
        assert batch["tokens"][row].tolist() == [(start + i) % found.tokens for i in range(17)]
        assert batch["segments"][row].tolist() == found.segments(np.array([start]), 17)[0].tolist()
        assert stream.sources(row) == found.names(start, 17)
    assert "segments" not in _stream(sets, segments=False).batch()


def test_a_step_is_the_same_however_it_is_reached(sets: dict[str, TokenSet]) -> None:
    walked, jumped = _stream(sets), _stream(sets)
    for _ in range(300):
        walked.batch()
        walked.advance()
    jumped.advance(300)
    assert _same(walked.batch(), jumped.batch()) and walked.state_dict() == jumped.state_dict()


def test_a_jump_crosses_changes_of_weights(sets: dict[str, TokenSet]) -> None:
    walked, jumped = _stream(sets, lag=5), _stream(sets, lag=5)
    for stream in (walked, jumped):
        stream.set_weights({"a": 0, "b": 0, "c": 1})
    for _ in range(20):
        walked.advance()
    jumped.advance(20)
    assert walked.state_dict() == jumped.state_dict() and walked.seen("c") > 15 * 8
    assert _same(walked.batch(), jumped.batch())


@pytest.mark.parametrize("world", [2, 3, 4, 8])
def test_ranks_share_the_batch_of_one(sets: dict[str, TokenSet], world: int) -> None:
    stream = _stream(sets)
    for _ in range(4):
        whole, parts = stream.batch(), [stream.batch(rank, world) for rank in range(world)]
        for name in whole:
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
        assert torch.equal(whole.positions, torch.cat([part.positions for part in parts]))
        stream.advance()


def test_resumes_from_its_state(sets: dict[str, TokenSet]) -> None:
    stream = _stream(sets, lag=3)
    for step in range(40):
        stream.set_weights({"a": 1 + step % 3, "b": 1, "c": step % 2})
        stream.advance()
    resumed = _stream(sets, lag=3)
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    for step in range(40):
        assert _same(stream.batch(), resumed.batch()) and stream.weights == resumed.weights
        for each in (stream, resumed):
            each.set_weights({"a": 1, "b": 2 + step % 5, "c": 1})
            each.advance()
    assert len(json.dumps(stream.state_dict())) < 1000


def test_the_state_of_other_domains_is_refused(sets: dict[str, TokenSet]) -> None:
    state = _stream({"a": sets["a"]}, weights={"a": 1}).state_dict()
    with pytest.raises(RequestError, match="domains a, and this run a, b, c"):
        _stream(sets).load_state_dict(state)


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 500), st.integers(1, 20), st.integers(0, 2**60), st.integers(0, 3))
def test_every_window_comes_once_per_epoch(tokens: int, stride: int, key: int, epoch: int) -> None:
    order = ShuffledWindows(SimpleNamespace(tokens=tokens), stride, key)  # type: ignore[arg-type]
    starts = order.starts(np.arange(order.windows, dtype=np.int64) + epoch * order.windows)
    covered = (starts[:, None] + np.arange(stride)).ravel() % tokens
    assert order.windows == tokens // stride
    assert len(np.unique(covered)) == len(covered) == order.windows * stride


def test_epochs_differ_and_a_batch_may_cross_them() -> None:
    order = ShuffledWindows(SimpleNamespace(tokens=1000), 10, 7)  # type: ignore[arg-type]
    first, second = order.starts(np.arange(100)), order.starts(np.arange(100, 200))
    # Differences do not see where the grid begins, so it is the shuffle itself that is new.
    assert not np.array_equal(np.diff(first) % 1000, np.diff(second) % 1000)
    assert set(first % 10) != set(second % 10), "the grid of windows moves"
    assert order.starts(np.arange(95, 105)).tolist() == [*first[95:], *second[:5]]
    other = ShuffledWindows(SimpleNamespace(tokens=1000), 10, 8)  # type: ignore[arg-type]
    assert other.starts(np.arange(100)).tolist() != first.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 500), st.integers(1, 20), st.integers(0, 2**60), st.data())
def test_a_limited_order_repeats_its_windows(tokens: int, stride: int, key: int, data: st.DataObject) -> None:
    whole = ShuffledWindows(SimpleNamespace(tokens=tokens), stride, key)  # type: ignore[arg-type]
    most = data.draw(st.integers(1, whole.windows))
    fewer = data.draw(st.integers(1, most))
    order, smaller = Limited(whole, most, key + 1), Limited(whole, fewer, key + 1)
    first = whole.starts(np.arange(most, dtype=np.int64))
    assert len(set(first.tolist())) == order.windows == most
    for epoch in range(4):
        found = order.starts(np.arange(most, dtype=np.int64) + epoch * most)
        assert sorted(found.tolist()) == sorted(first.tolist()), "each of its windows once an epoch, and no other"
        assert epoch > 0 or found.tolist() == first.tolist(), "the first epoch is that of the whole"
    assert set(smaller.starts(np.arange(3 * fewer)).tolist()) <= set(first.tolist())
    mixed = np.array([most - 1, most, 0, 2 * most], dtype=np.int64)
    assert order.starts(mixed).tolist() == [int(order.starts(mixed[i : i + 1])[0]) for i in range(4)]


def test_epochs_of_a_limited_order_differ() -> None:
    order = Limited(ShuffledWindows(SimpleNamespace(tokens=1000), 10, 7), 60, 9)  # type: ignore[arg-type]
    epochs = [order.starts(np.arange(60) + 60 * epoch).tolist() for epoch in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = Limited(ShuffledWindows(SimpleNamespace(tokens=1000), 10, 8), 60, 9)  # type: ignore[arg-type]
    assert set(other.starts(np.arange(60)).tolist()) != set(epochs[0])


def _trained(stream: Stream, domain: int, steps: int) -> set[int]:
    """The tokens of a domain that are predicted in some steps."""
    found: set[int] = set()
    for _ in range(steps):
        batch = stream.batch()
        found |= set(batch["tokens"][batch["domain"] == domain, 1:].flatten().tolist())
        stream.advance()
    return found


@pytest.mark.parametrize(("unique", "windows"), [(16, 1), (160, 10), (167, 10), (168, 11), (90 * 91 // 2, None)])
def test_a_limited_domain_trains_on_so_many_tokens(sets: dict[str, TokenSet], unique: int, windows: int | None) -> None:
    unique = min(unique, sets["b"].tokens)
    stream = _stream(sets, unique={"b": unique})
    windows = windows or sets["b"].tokens // 16
    assert stream.unique == {"b": windows}
    assert len(_trained(stream, 1, 150)) == 16 * windows
    assert stream.epoch("b") == stream.seen("b") / windows
    assert len(_trained(_stream(sets, unique={"b": unique}), 0, 20)) > 16 * 20, "other domains are not limited"


def test_a_limited_stream_is_the_whole_one_until_its_windows_are_spent(sets: dict[str, TokenSet]) -> None:
    whole, limited, other = _stream(sets), _stream(sets, unique={"b": 480}), _stream(sets, unique={"b": 480}, seed=4)
    while whole.seen("b") + 8 < 30:
        assert _same(whole.batch(), limited.batch())
        whole.advance()
        limited.advance()
    small, large = (_stream(sets, unique={"b": unique}) for unique in (200, 480))
    assert _trained(small, 1, 200) < _trained(large, 1, 200) != _trained(other, 1, 200)


def test_a_limited_stream_resumes_and_replays(sets: dict[str, TokenSet]) -> None:
    stream, shown = _stream(sets, unique={"c": 96}), []
    for _ in range(40):
        batch = stream.batch()
        shown += batch["tokens"][batch["domain"] == 2].tolist()
        stream.advance()
    assert stream.windows_at("c", np.arange(stream.seen("c")))["tokens"].tolist() == shown
    assert len({tuple(row) for row in shown}) == 6
    resumed = _stream(sets, unique={"c": 96})
    resumed.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    for _ in range(10):
        assert _same(stream.batch(), resumed.batch())
        stream.advance()
        resumed.advance()


@pytest.mark.parametrize(
    ("before", "after", "steps", "expected"),
    [
        (96, 96, 40, None),  # the same windows: on from where it stood
        (None, None, 40, None),
        (96, None, 40, 6),  # the six first windows were seen, again and again
        (96, 160, 40, 6),
        (160, 96, 40, 6),
        (None, 96, 40, 6),
        (None, 160, 2, None),  # no more than a few were seen
    ],
)
def test_a_branch_begins_after_what_was_seen(
    sets: dict[str, TokenSet], before: int | None, after: int | None, steps: int, expected: int | None
) -> None:
    first, second = (_stream(sets, unique={} if unique is None else {"c": unique}) for unique in (before, after))
    shown: set[tuple[int, ...]] = set()
    for _ in range(steps):
        batch = first.batch()
        shown |= {tuple(row) for row in batch["tokens"][batch["domain"] == 2].tolist()}
        first.advance()
    second.continue_from(first.state_dict(), {"c"})
    assert second.seen("c") == (first.seen("c") if expected is None else expected)
    assert second.seen("a") == 0
    replay = second.windows_at("c", np.arange(second.seen("c")))["tokens"].tolist()
    assert {tuple(row) for row in replay} <= shown


@pytest.mark.parametrize(
    ("unique", "said"),
    [
        (4000, r"corpus.a.unique: the training split of domain 'a' has \d+ tokens, fewer than the 4000 asked for"),
        (15, r"corpus.a.unique: 15 tokens are less than one window of 16 \(model.context\)"),
    ],
)
def test_limits_that_cannot_be(sets: dict[str, TokenSet], unique: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        _stream(sets, unique={"a": unique})


def test_a_domain_is_gone_through_once_per_epoch(sets: dict[str, TokenSet]) -> None:
    stream = _stream(sets)
    seen: Counter[tuple[int, int]] = Counter()
    windows = sets["b"].tokens // 16
    while stream.seen("b") < windows:
        batch = stream.batch()
        for row in torch.flatten((batch["domain"] == 1).nonzero()).tolist()[: windows - stream.seen("b")]:
            seen.update((1, int(token)) for token in batch["tokens"][row, 1:])
        stream.advance()
    assert set(seen.values()) == {1} and len(seen) == windows * 16, "each token is new exactly once"
    assert 1 <= stream.epoch("b") < 1.1


def test_what_was_seen_can_be_replayed(sets: dict[str, TokenSet]) -> None:
    stream = _stream(sets)
    shown = []
    for _ in range(50):
        batch = stream.batch()
        shown += [batch.take(slice(row, row + 1)) for row in range(8) if batch["domain"][row] == 2]
        stream.advance()
    assert stream.seen("c") == len(shown)
    replay = stream.windows_at("c", np.arange(len(shown)))
    for name in ("tokens", "segments", "domain"):
        assert torch.equal(replay[name], torch.cat([row[name] for row in shown]))


@pytest.mark.parametrize("weights", [{"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 98.0, "b": 1.0, "c": 1.0}])
def test_realised_shares_stay_close_to_the_weights(sets: dict[str, TokenSet], weights: dict[str, float]) -> None:
    for seed in range(5):
        stream = _stream(sets, weights=weights, seed=seed)
        for step in range(1, 400):
            stream.advance()
            for name, weight in weights.items():
                expected = step * 8 * weight / sum(weights.values())
                # Random draws would stray by 3 sqrt(n p (1 - p)): up to 85 windows here.
                assert abs(stream.seen(name) - expected) < 4, (seed, step, name)


def test_which_domain_is_not_the_same_for_every_seed_or_row(sets: dict[str, TokenSet]) -> None:
    assert len({tuple(_stream(sets, seed=seed).batch()["domain"].tolist()) for seed in range(20)}) > 5
    stream, rows = _stream(sets), []
    for _ in range(600):
        rows.append(stream.batch()["domain"])
        stream.advance()
    shares = (torch.stack(rows) == 0).double().mean(0)
    assert torch.all((shares - 0.5).abs() < 0.02), "every row (so every rank) sees the whole mixture"


def test_new_weights_act_after_the_lag(sets: dict[str, TokenSet]) -> None:
    stream, plain = _stream(sets, lag=3), _stream(sets, lag=3)
    for each in (stream, plain):
        each.advance(10)
    stream.set_weights({"a": 1, "b": 1, "c": 1})
    stream.set_weights({"a": 0, "b": 4, "c": 0})  # the same step again: this one counts
    for _ in range(3):
        assert _same(stream.batch(), plain.batch())
        assert stream.weights == plain.weights
        stream.advance()
        plain.advance()
    assert stream.weights == {"a": 0, "b": 1, "c": 0} and stream.step == 13
    assert set(stream.batch()["domain"].tolist()) == {1}


def test_a_domain_without_weight_is_never_drawn(sets: dict[str, TokenSet]) -> None:
    for weights in ({"a": 0, "b": 1, "c": 2}, {"a": 1, "b": 0, "c": 2}, {"a": 1, "b": 2, "c": 0}):
        stream = _stream(sets, weights=weights)
        stream.advance(1000)
        assert [stream.seen(name) for name, weight in weights.items() if weight == 0] == [0]
        assert sum(stream.seen(name) for name in weights) == 8000


def test_a_draw_behind_the_last_rounded_share(make_set: MakeSet) -> None:
    names = [f"domain-{number}" for number in range(10)]
    found = make_set([100])
    stream = _stream(dict.fromkeys(names, found), weights={**dict.fromkeys(names, 1), "domain-9": 0}, rows=1)
    stream.weights = {**dict.fromkeys(names[:-1], 0.1), "domain-8": 0.2 - 2**-52, "domain-9": 0.0}  # sums to below 1
    stream._origin = np.uint64(2**64 - 1)  # the largest point
    assert stream.batch()["domain"].tolist() == [8]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "b": -1, "c": 1}, "domain 'b' is -1"),
        ({"a": 1, "b": math.nan, "c": 1}, "domain 'b' is nan"),
        ({"a": 1, "b": math.inf, "c": 1}, "domain 'b' is inf"),
        ({"a": 0, "b": 0, "c": 0}, "sum to zero"),
        ({"a": 1, "b": 1}, "no weight for domain 'c'"),
        ({"a": 1, "b": 1, "c": 1, "bb": 1}, "there is no domain 'bb'; did you mean 'b'"),
    ],
)
def test_weights_that_cannot_be(sets: dict[str, TokenSet], weights: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        _stream(sets, weights=weights)
    with pytest.raises(RequestError, match=message):
        _stream(sets).set_weights(weights)


def test_too_little_text_for_a_window(make_set: MakeSet) -> None:
    sets = {"large": make_set([100]), "small": make_set([10, 6])}
    message = "domain 'small' has 16 tokens in 2 documents, fewer than one window of 17"
    with pytest.raises(RequestError, match=message):
        _stream(sets, weights={"large": 1, "small": 1})
    stream = _stream(sets, weights={"large": 1, "small": 0})
    stream.batch()
    with pytest.raises(RequestError, match=message):
        stream.set_weights({"large": 1, "small": 0.1})
    with pytest.raises(RequestError, match="did you mean 'small'"):
        stream.seen("smal")


def test_one_window_is_enough(make_set: MakeSet) -> None:
    stream = _stream({"a": make_set([17])}, weights={"a": 1})
    assert sorted(stream.batch()["tokens"][0].tolist()) == list(range(17))


def test_an_order_can_be_replaced(make_set: MakeSet) -> None:
    class InOrder:
        def __init__(self, tokens: TokenSet, stride: int, key: int) -> None:
            self.windows, self.stride = tokens.tokens // stride, stride

        def starts(self, counters: Any) -> Any:
            return counters % self.windows * self.stride

    stream = _stream({"a": make_set([100])}, weights={"a": 1}, rows=2, orders={"a": InOrder})
    stream.advance(2)
    assert stream.batch()["tokens"][:, 0].tolist() == [64, 80]
    stream.advance()
    assert stream.batch()["tokens"][:, 0].tolist() == [0, 16]


def test_nothing_of_the_size_of_the_corpus_is_made(make_set: MakeSet) -> None:
    sets = {"a": make_set([500] * 4000)}
    tracemalloc.start()
    try:
        for limit in ({}, {"a": 1_500_000}):
            stream = _stream(sets, weights={"a": 1}, window=2, stride=1, unique=limit)  # two million windows
            stream.continue_from({"counters": {"a": 10_000_000}, "unique": limit and {"a": 1_500_000}}, {"a"})
            for _ in range(20):
                stream.batch()
                stream.advance()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
