"""Shares of topics by their progress: the formula by a loop, what is left alone, and that laggards gain."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from foretrain.errors import RequestError
from foretrain.steering.topic_control import TopicControl, gaps
from foretrain.trainer import Trainer
from tests.tiny import tiny_data, tiny_trainer

CORPUS: dict[str, Any] = {
    "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.1, "steer": 0.1, "weight": 2},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 120}, "validation": 0.1, "steer": 0.1},
    "other": {"path": "builtin:passwords", "options": {"count": 400}, "validation": 0.1, "steer": 0.1},
}
TOPICS = ("prose", "sums")


def _trainer(found: list[dict[str, float]] | None = None, recipe: dict[str, Any] | None = None, **settings: Any) -> Any:
    part = {"kind": "topic_control", "topics": [*TOPICS], "every": 2, **settings}
    trainer = tiny_trainer(steering=[part], **{"corpus": CORPUS, **(recipe or {})})
    if found is not None:
        given = iter(found)
        object.__setattr__(trainer.context, "evaluate", lambda split, tokens: next(given))
    return trainer


def _part(trainer: Trainer) -> TopicControl:
    part = trainer.steering[0]
    assert isinstance(part, TopicControl)
    return part


def _weights(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Weights that come into force, in the order of the steps they are set in."""
    part, found = _part(trainer), []
    mix = type(part).mix
    object.__setattr__(part, "mix", lambda weights, step: found.append(dict(mix(part, weights, step))) or found[-1])
    for _ in range(steps):
        trainer.train_step()
    return found


def test_shares_are_those_of_this_loop() -> None:
    measured = [
        {"prose": 5.0, "sums": 4.0, "other": 6.0},
        {"prose": 4.5, "sums": 3.9, "other": 6.0},
        {"prose": 4.6, "sums": 2.0, "other": 1.0},
        {"prose": 4.6, "sums": 2.0, "other": 1.0},
    ]
    found = _weights(_trainer(measured, rate=0.3, most=1.5), 8)
    shares = {"prose": 0.5, "sums": 0.25}
    expected = []
    for turn, losses in enumerate(measured):
        if turn:
            progress = {name: 1 - math.exp(losses[name]) / math.exp(measured[turn - 1][name]) for name in shares}
            mean = sum(progress.values()) / 2
            size = sum(abs(value) for value in progress.values()) / 2
            for name in shares:
                gap = (mean - progress[name]) / size if size else 0.0
                shares[name] *= math.exp(0.3 * max(-1.5, min(1.5, gap)))
            total = sum(shares.values())
            shares = {name: 0.75 * share / total for name, share in shares.items()}
        expected += [dict(shares)] * 2
    for ours, theirs in zip(found, expected, strict=True):
        assert {name: ours[name] for name in shares} == pytest.approx(theirs)
        assert ours["other"] == 0.25, "what is no topic is left alone"
    assert found[2]["sums"] > 0.25 > found[4]["sums"], "who lags gains, and then the other does"


def test_gaps() -> None:
    assert gaps({"a": 0.1, "b": 0.1}, 2) == {"a": 0, "b": 0} == gaps({"a": 0.0, "b": 0.0}, 2)
    assert gaps({"a": 0.2, "b": 0.0}, 2) == pytest.approx({"a": -1, "b": 1})
    assert gaps({"a": 2e-6, "b": 0.0}, 2) == pytest.approx({"a": -1, "b": 1}), "the size of steps does not count"
    assert gaps({"a": 0.1, "b": 0.1, "c": 0.1, "d": 0.1, "e": -3.0}, 2)["e"] == 2


def test_a_run_is_drawn_by_the_factors_that_it_keeps() -> None:
    corpus = {**CORPUS, "other": {**CORPUS["other"], "options": {"count": 400}}}
    trainer = tiny_trainer(
        total=40,
        corpus=corpus,
        budget={"steps": 40},
        optimizer={"lr": 1e-2},
        steering=[{"kind": "topic_control", "every": 4, "tokens": 512}],
    )
    for _ in range(40):
        figures = trainer.train_step()
    weights = {name: figures[f"domain/{name}/weight"] for name in corpus}
    assert sum(weights.values()) == pytest.approx(1)
    # The weights follow from the figures that the run has recorded.
    part = _part(trainer)
    start = trainer.plan.weights
    moved = {name: start[name] * math.exp(part._factors[name]) for name in start}
    assert weights == pytest.approx({name: weight / sum(moved.values()) for name, weight in moved.items()})
    assert max(part._factors.values()) - min(part._factors.values()) > 0.1


def test_a_stage_without_topics_leaves_its_weights() -> None:
    stages = {
        "others": {"share": 1, "weights": {"other": 1}},
        "topics": {"share": 1, "weights": {"other": 1, "sums": 1, "prose": 2}},
    }
    corpus = {name: {key: value for key, value in found.items() if key != "weight"} for name, found in CORPUS.items()}
    measured = [{"prose": 5.0 - step, "sums": 5.0, "other": 1.0} for step in range(4)]
    found = _weights(_trainer(measured, {"corpus": corpus, "stages": stages}, rate=0.2), 8)
    assert found[0] == {"prose": 0, "sums": 0, "other": 1} and found[1] == found[0]
    assert found[-1]["other"] == 0.25 and found[-1]["sums"] / found[-1]["prose"] > 0.5
    assert found[-1]["sums"] + found[-1]["prose"] == pytest.approx(0.75)


def test_it_goes_on_exactly() -> None:
    trainer = _trainer()
    for _ in range(5):
        trainer.train_step()
    state = copy.deepcopy(trainer.state_dict())
    resumed = _trainer()
    resumed.load_state_dict(state)
    assert _part(resumed).state_dict() == _part(trainer).state_dict()
    for _ in range(3):
        assert trainer.train_step() == resumed.train_step()


def test_measuring_is_a_kind_of_step() -> None:
    trainer = _trainer()
    assert [trainer.kind(step) for step in range(4)] == ["topics", "", "topics", ""]


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"topics": ["prose", "summs"]}, "topics: .*'sums'"), ({"topics": ["sums", "sums"]}, "stands there twice")],
)
def test_topics_are_domains(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        _trainer(**settings)


def test_a_topic_needs_a_steer_split() -> None:
    corpus = {**CORPUS, "sums": {**CORPUS["sums"], "steer": 0}}
    with pytest.raises(RequestError, match=r"domain 'sums' has no steer split .* corpus\.sums\.steer: 0\.05"):
        _trainer(recipe={"corpus": corpus}).train_step()
    assert "steer" not in tiny_data()["corpus"]["sums"]
    with pytest.raises(RequestError, match="steer split"):
        tiny_trainer(steering=[{"kind": "topic_control"}]).train_step()
