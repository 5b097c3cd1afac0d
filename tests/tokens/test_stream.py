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
from foretrain.tokens.order import Shuffled
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
    order = Shuffled(SimpleNamespace(tokens=tokens), stride, key)  # type: ignore[arg-type]
    starts = order.starts(np.arange(order.windows, dtype=np.int64) + epoch * order.windows)
    covered = (starts[:, None] + np.arange(stride)).ravel() % tokens
    assert order.windows == tokens // stride
    assert len(np.unique(covered)) == len(covered) == order.windows * stride


def test_epochs_differ_and_a_batch_may_cross_them() -> None:
    order = Shuffled(SimpleNamespace(tokens=1000), 10, 7)  # type: ignore[arg-type]
    first, second = order.starts(np.arange(100)), order.starts(np.arange(100, 200))
    # Differences do not see where the grid begins, so it is the shuffle itself that is new.
    assert not np.array_equal(np.diff(first) % 1000, np.diff(second) % 1000)
    assert set(first % 10) != set(second % 10), "the grid of windows moves"
    assert order.starts(np.arange(95, 105)).tolist() == [*first[95:], *second[:5]]
    other = Shuffled(SimpleNamespace(tokens=1000), 10, 8)  # type: ignore[arg-type]
    assert other.starts(np.arange(100)).tolist() != first.tolist()


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

    stream = _stream({"a": make_set([100])}, weights={"a": 1}, rows=2, order=InOrder)
    stream.advance(2)
    assert stream.batch()["tokens"][:, 0].tolist() == [64, 80]
    stream.advance()
    assert stream.batch()["tokens"][:, 0].tolist() == [0, 16]


def test_nothing_of_the_size_of_the_corpus_is_made(make_set: MakeSet) -> None:
    sets = {"a": make_set([500] * 4000)}
    tracemalloc.start()
    try:
        stream = _stream(sets, weights={"a": 1}, window=2, stride=1)  # two million windows
        for _ in range(20):
            stream.batch()
            stream.advance()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
