"""Mixtures from the sizes of the domains: temperature sampling and UniMax against explicit loops."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.checks.trial import trial
from foretrain.distributed import Group
from foretrain.steering._sizes import sizes
from foretrain.steering.base import Steering
from foretrain.steering.temperature import Temperature
from foretrain.steering.unimax import UniMax, shared_out
from foretrain.tokens.stream import LAG
from foretrain.trainer import Trainer

CORPUS: dict[str, Any] = {
    "prose": {"path": "builtin:biographies", "options": {"people": 100}},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 30}},
    "lego": {"path": "builtin:lego", "options": {"count": 100}, "unique": 640},
}


def _trainer(part: dict[str, Any] | None = None, steps: int = 0, recipe: dict[str, Any] | None = None) -> Trainer:
    trainer = trial({"corpus": CORPUS, "steering": [part] if part else [], **(recipe or {})})
    for _ in range(steps):
        trainer.train_step()
    return trainer


def _stub(part: Steering, tokens: dict[str, int], total: int = 0, bytes_: dict[str, int] | None = None) -> list[str]:
    """Set a part up on domains of these sizes, in a run of `total` tokens; returns what it warns of."""
    said: list[str] = []
    sets = {
        name: SimpleNamespace(tokens=count, bytes=(bytes_ or tokens)[name], documents=1)
        for name, count in tokens.items()
    }
    stream = SimpleNamespace(sets=sets, unique={}, stride=1, rows=1, domains=tuple(tokens))
    part.setup(SimpleNamespace(stream=stream, total_steps=total, warn=said.append))  # type: ignore[arg-type]
    return said


def _shares(found: Any) -> dict[str, float]:
    return {name: value / sum(found.values()) for name, value in found.items()}


# Sizes --------------------------------------------------------------------------------------------------------------


def test_sizes_are_of_what_is_trained_on() -> None:
    trainer = _trainer()
    found = sizes(trainer.stream)
    for name in ("prose", "sums"):
        train = trainer.plan.sets("train")[name]
        assert (found[name].tokens, found[name].bytes) == (train.tokens, train.bytes)
    assert found["lego"].tokens == 640 == trainer.plan.unique["lego"]
    lego = trainer.plan.sets("train")["lego"]
    assert found["lego"].bytes == pytest.approx(640 * lego.bytes / lego.tokens)


# Temperature --------------------------------------------------------------------------------------------------------


def test_shares_are_powers_of_the_sizes() -> None:
    trainer = _trainer({"kind": "temperature", "exponent": 0.3}, LAG + 1)
    tokens = {name: size.tokens for name, size in sizes(trainer.stream).items()}
    total = sum(count**0.3 for count in tokens.values())
    expected = {name: count**0.3 / total for name, count in tokens.items()}
    assert trainer.stream.weights == pytest.approx(expected, rel=1e-12)


def test_exponent_1_reads_all_text_equally_often() -> None:
    part = Temperature(exponent=1.0)
    _stub(part, {"a": 100, "b": 700})
    assert _shares(part.mix({"a": 0.5, "b": 0.5}, 0)) == pytest.approx({"a": 1 / 8, "b": 7 / 8})


def test_in_bytes_a_language_that_is_cut_finely_gets_more_tokens() -> None:
    """Shares of bytes are the powers of bytes, so those of tokens are these times tokens per byte."""
    part = Temperature(exponent=0.5, unit="bytes")
    _stub(part, {"a": 300, "b": 100}, bytes_={"a": 400, "b": 400})
    found = _shares(part.mix({"a": 0.5, "b": 0.5}, 0))
    assert found == pytest.approx({"a": 0.75, "b": 0.25}), "equal bytes, at three tokens against one"


def test_incoming_weights_are_multiplied() -> None:
    part = Temperature(exponent=0.5)
    _stub(part, {"a": 100, "b": 400})
    found = part.mix({"a": 3.0, "b": 1.0, "judged": 0.0}, 0)
    assert found["a"] / found["b"] == pytest.approx(1.5) and found["judged"] == 0


# UniMax -------------------------------------------------------------------------------------------------------------


def _papers_rule(total: float, tokens: dict[str, int], epochs: float) -> dict[str, float]:
    """Algorithm 1 of the paper: languages from the smallest up."""
    left, budgets = total, {}
    order = sorted(tokens, key=lambda name: tokens[name])
    for place, name in enumerate(order):
        budgets[name] = min(epochs * tokens[name], left / (len(order) - place))
        left -= budgets[name]
    return budgets


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.floats(0.5, 20), st.integers(1, 100_000))
def test_budgets_are_those_of_the_papers_rule(counts: list[int], epochs: float, total: int) -> None:
    tokens = {f"d{number}": count for number, count in enumerate(counts)}
    part = UniMax(epochs=epochs)
    said = _stub(part, tokens, total)
    even = dict.fromkeys(tokens, 1 / len(tokens))
    found, expected = part.mix(even, 0), _papers_rule(total, tokens, epochs)
    assert _shares(found) == pytest.approx(_shares(expected), rel=1e-9)
    assert bool(said) == (total > epochs * sum(counts))


def test_the_cards_sizes() -> None:
    tokens = {"a": 20, "b": 40, "c": 80, "d": 300, "e": 1200}
    part = UniMax(epochs=4)
    _stub(part, tokens, 1200)
    found = part.mix(dict.fromkeys(tokens, 0.2), 0)
    # 240 each: a has 80, b 160 at four epochs; the other 960 are shared by three.
    assert found == pytest.approx({"a": 80, "b": 160, "c": 320, "d": 320, "e": 320})


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0.01, 10), st.floats(0.1, 1e4)), min_size=1),
    st.floats(0.1, 1e4),
)
def test_sharing_out_spends_all_and_keeps_proportions(pairs: dict[str, tuple[float, float]], total: float) -> None:
    even, caps = {n: e for n, (e, _) in pairs.items()}, {n: c for n, (_, c) in pairs.items()}
    found = shared_out(total, even, caps)
    assert all(found[name] <= caps[name] * (1 + 1e-9) for name in found)
    assert math.fsum(found.values()) == pytest.approx(min(total, math.fsum(caps.values())), rel=1e-9)
    ratios = [found[name] / even[name] for name in found if found[name] < caps[name] * (1 - 1e-9)]
    assert all(ratio == pytest.approx(ratios[0], rel=1e-9) for ratio in ratios)
    # Whoever is at its cap would otherwise have had more than those who are not.
    assert all(
        caps[name] / even[name] <= ratios[0] * (1 + 1e-9) for name in found if ratios and found[name] == caps[name]
    )


def test_the_run_repeats_no_domain_too_often() -> None:
    epochs = {}
    for part in (None, {"kind": "unimax", "epochs": 1.5}):
        plan = _trainer(part, recipe={"budget": {"steps": 60}}).plan
        trainer = Trainer(plan, 60, Group())
        for step in range(60):  # all of a step but its training
            trainer._mix(step, at=step + LAG)
            trainer.stream.advance()
        epochs[part is None] = {name: trainer.stream.epoch(name) for name in CORPUS}
    assert epochs[True]["lego"] > 4
    assert epochs[False]["lego"] == pytest.approx(1.5, abs=0.05)
    assert max(epochs[False].values()) == epochs[False]["lego"]


def test_equal_bytes_are_tokens_by_fertility() -> None:
    part = UniMax(epochs=10, unit="bytes")
    _stub(part, {"a": 300, "b": 100, "c": 10}, 410, {"a": 400, "b": 400, "c": 10})
    found = part.mix({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 0)
    # Bytes: c has at most 100; a and b the same: 310 tokens at (0.75 + 0.25) tokens a byte.
    assert {name: found[name] for name in "ab"} == pytest.approx({"a": 0.75 * 310, "b": 0.25 * 310})
    assert found["c"] == pytest.approx(100)


@pytest.mark.parametrize("part", [{"kind": "unimax", "epochs": 1000}, {"kind": "temperature", "exponent": 0}])
def test_where_no_cap_is_reached_and_at_exponent_0_nothing_changes(part: dict[str, Any]) -> None:
    plain, same = _trainer(), _trainer(part)
    for _ in range(5):
        assert same.train_step()["loss"] == plain.train_step()["loss"]
    for name, weight in same.learner.masters.items():
        assert torch.equal(weight, plain.learner.masters[name])


def test_too_little_text_is_told_and_read_in_proportion() -> None:
    part = UniMax(epochs=2)
    said = _stub(part, {"a": 100, "b": 300}, 1600)
    assert _shares(part.mix({"a": 0.5, "b": 0.5}, 0)) == pytest.approx({"a": 0.25, "b": 0.75})
    assert said == [
        "steering 'unimax': the run trains on 1,600 tokens, more than 2 times all text; every domain is read 4 times "
        "instead."
    ]
