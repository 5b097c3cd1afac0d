"""Any list of parts that move the mixture composes: in its order, to shares that are finite and sum to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretrain.checks.trial import trial
from foretrain.parts import Facts
from foretrain.steering.base import Steering
from foretrain.trainer import Trainer
from tests.tiny import FEEDBACK

CORPUS: dict[str, Any] = {
    "prose": {"path": "builtin:biographies", "options": {"people": 60}, "steer": 0.2, "weight": 2},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 60}, "steer": 0.2},
    "lego": {"path": "builtin:lego", "options": {"count": 60}, "steer": 0.2, "unique": 320},
}
VALUED = {"feedback": "sums", "every": 2, "parameters": "last:1", "items": 4}
PARTS: dict[str, dict[str, Any]] = {
    "temperature": {"kind": "temperature", "exponent": 0.5},
    "unimax": {"kind": "unimax", "epochs": 0.5},
    "static_mixture": {"kind": "static_mixture", "weights": {"prose": 1, "sums": 0, "lego": 3}},
    "skill_it": {"kind": "skill_it", "every": 1, "per_round": 2, "window": 2, "graph": "identity", "tokens": 256},
    "value_mixture": {"kind": "value_mixture", "rate": 0.5, **VALUED},
    "try_all_on_one": {"kind": "try_all_on_one"},
}


class TryAllOnOne(Steering):
    """Leaves a single domain."""

    kind: Literal["try_all_on_one"] = "try_all_on_one"
    facts: ClassVar[Facts] = Facts(answers="mix: what if one domain is all?")

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        return {name: weight if name == "prose" else 0.0 for name, weight in weights.items()}


def _trainer(parts: list[dict[str, Any]]) -> Trainer:
    return trial({"corpus": CORPUS, "feedback": FEEDBACK, "overlap": "warn", "steering": parts})


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4))
def test_any_list_of_mixers_composes(names: list[str]) -> None:
    trainer = _trainer([PARTS[name] for name in names])
    seen: list[tuple[str, dict[str, float], dict[str, float]]] = []
    for part in trainer.mixers:
        _watch(part, seen)
    for _ in range(5):
        seen.clear()
        trainer.train_step()
        assert [kind for kind, _, _ in seen] == names, "in the order listed, once a step"
        assert seen[0][1] == trainer.plan.weights
        for (_, _, given_on), (_, got, _) in pairwise(seen):
            assert got == given_on, "each sees what the one before it made"
        for _, _, found in seen:
            assert set(found) == set(CORPUS)
            assert all(math.isfinite(weight) and weight >= 0 for weight in found.values())
            assert sum(found.values()) > 0
        last = seen[-1][2]
        announced = trainer.stream.state_dict()["pending"][-1][1]
        assert announced == pytest.approx({name: weight / sum(last.values()) for name, weight in last.items()})


def _watch(part: Steering, seen: list[tuple[str, dict[str, float], dict[str, float]]]) -> None:
    mix = part.mix

    def watched(weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        found = mix(weights, step)
        seen.append((part.kind, dict(weights), dict(found)))
        return found

    object.__setattr__(part, "mix", watched)


def test_order_decides_where_parts_do_not_commute() -> None:
    """A rule that caps keeps its caps when it comes last, and is multiplied on when it comes first."""
    found = {}
    for names in (("temperature", "unimax"), ("unimax", "temperature")):
        trainer = _trainer([PARTS[name] for name in names])
        for _ in range(4):
            trainer.train_step()
        found[names] = trainer.stream.weights
    assert found["temperature", "unimax"] != pytest.approx(found["unimax", "temperature"], rel=1e-3)
