"""Domain weights by value: the update against a loop, the floor, and that the right domain gains."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.batch import Batch
from foretrain.checks import check_part
from foretrain.checks.trial import trial
from foretrain.distributed import Group
from foretrain.steering.value_mixture import ValueMixture, floored, measured_rows
from foretrain.trainer import Trainer
from foretrain.value.measuring import feedback_direction
from foretrain.value.reference import token_gradients
from tests.tiny import FEEDBACK

RECIPE: dict[str, Any] = {"feedback": FEEDBACK, "overlap": "warn"}


def _trainer(steps: int = 0, recipe: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    part = {"kind": "value_mixture", "feedback": "sums", "every": 2, "parameters": "last:1", "items": 8, **settings}
    trainer = trial({**RECIPE, "steering": [part], **(recipe or {})})
    for _ in range(steps):
        trainer.train_step()
    return trainer


def _part(trainer: Trainer) -> ValueMixture:
    part = trainer.steering[0]
    assert isinstance(part, ValueMixture)
    return part


# What is measured ---------------------------------------------------------------------------------------------------


def test_the_value_of_a_domain_is_the_mean_of_its_tokens() -> None:
    trainer = _trainer(6, rows=1.0)
    part, batch = _part(trainer), trainer.objective.prepare(trainer.stream.batch())
    batch = batch.with_(mask=batch["mask"] & (torch.arange(32) < 20))  # tokens that are not predicted do not count
    part.before_step(batch)
    direction = feedback_direction(trainer.context, "sums", batch.step, 8, part._names).vector
    values = token_gradients(
        lambda: trainer.objective.losses(trainer.objective.forward(trainer.learner.model, batch), batch),
        [trainer.learner.masters[name] for name in part._names],
        [direction[name] for name in part._names],
    )
    for number, name in enumerate(batch.domains):
        tokens = [
            float(values[row, place])
            for row in range(batch.rows)
            for place in range(values.shape[1])
            if int(batch["domain"][row]) == number and bool(batch["mask"][row, place])
        ]
        expected = sum(tokens) / len(tokens)
        assert trainer.figures[f"value_mixture/{name}/value"] == pytest.approx(expected, rel=2e-3)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.floats(0.01, 1), st.integers(0, 10**18))
def test_some_rows_are_measured_and_one_of_each_domain(domains: list[int], share: float, seed: int) -> None:
    numbers = torch.tensor(domains)
    chosen = measured_rows(numbers, share, seed)
    assert torch.equal(chosen, measured_rows(numbers, share, seed))
    assert set(numbers[chosen].tolist()) == set(domains)
    least = math.floor(share * len(domains))
    assert least <= int(chosen.sum()) <= least + 1 + len(set(domains))


def test_rows_are_shared_out_evenly_over_ranks() -> None:
    chosen = measured_rows(torch.zeros(64, dtype=torch.int64), 0.25, 12345)
    assert chosen.view(4, 16).sum(1).tolist() == [4, 4, 4, 4]
    picks = {tuple(measured_rows(torch.zeros(64), 0.25, seed).tolist()) for seed in range(8)}
    assert len(picks) > 1, "which ones depends on the seed"


def test_a_rank_with_fewer_rows_is_filled_up_with_what_counts_nothing() -> None:
    trainer = _trainer()
    part, batch = _part(trainer), trainer.objective.prepare(trainer.stream.batch())
    part._context = SimpleNamespace(group=Group(rank=1, world=2), stream=trainer.stream)
    chosen = torch.tensor([True, True, True, False, False, False, True, False])
    mine = part._mine(batch.take(slice(4, 8)), chosen)
    assert mine.rows == 3
    assert mine["mask"].any(1).tolist() == [True, False, False]
    assert torch.equal(mine["inputs"][0], batch["inputs"][6])


# The update ---------------------------------------------------------------------------------------------------------


def _fed(trainer: Trainer, found: list[dict[str, float] | None]) -> list[dict[str, float]]:
    """Weights after measurements that give what is told."""
    part, result = _part(trainer), []
    given = iter(found)
    object.__setattr__(part, "domain_values", lambda piece: next(given))
    batch = trainer.objective.prepare(trainer.stream.batch())
    for turn in range(len(found)):
        step = turn * part.every
        part.before_step(
            Batch(dict(batch), seed=0, step=step, positions=batch.positions + step * batch.rows, domains=batch.domains)
        )
        result.append(dict(part.mix(trainer.plan.weights, step)))
    return result


def _shares(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def test_the_update_is_this_loop() -> None:
    trainer = _trainer(rate=0.3, window=2, floor=0.0)
    found: list[dict[str, float] | None] = [
        {"prose": 1.0, "sums": 3.0},
        {"prose": -2.0},
        None,
        {"prose": 0.5, "sums": 1.0},
        {"prose": 0.4, "sums": 2.0},
    ]
    seen: dict[str, list[float]] = {"prose": [], "sums": []}
    factors, expected = {"prose": 1.0, "sums": 1.0}, []
    mean, filled = 0.0, 0.0
    for one in found:
        if one is not None:
            for name, value in one.items():
                seen[name] = [*seen[name], value][-2:]
            size = sum(abs(value) for value in one.values()) / len(one)  # both domains have the weight 1/2
            mean, filled = 0.9 * mean + 0.1 * size, 0.9 * filled + 0.1
            means = {name: sum(values) / len(values) for name, values in seen.items()}
            centre = sum(means.values()) / 2
            for name in factors:
                factors[name] *= math.exp(0.3 * (means[name] - centre) / (mean / filled))
        expected.append(_shares(factors))
    for got, wanted in zip(_fed(trainer, found), expected, strict=True):
        assert _shares(got) == pytest.approx(wanted, rel=1e-9)


def test_the_unit_of_value_does_not_matter() -> None:
    small, large = (
        _fed(_trainer(rate=0.5), [{"prose": size, "sums": 2 * size}, {"prose": 2 * size, "sums": size}])
        for size in (1e-6, 1e3)
    )
    for a, b in zip(small, large, strict=True):
        assert a == pytest.approx(b, rel=1e-9)
    assert small[0]["sums"] > small[0]["prose"]


def test_what_falls_to_the_floor_rises_again_at_once() -> None:
    bad: dict[str, float] | None = {"prose": -1.0, "sums": 1.0}
    good: dict[str, float] | None = {"prose": 1.0, "sums": -1.0}
    weights = [_shares(one) for one in _fed(_trainer(rate=1.0, window=1, floor=0.1), [bad] * 5 + [good])]
    assert weights[4]["prose"] == pytest.approx(0.1) and weights[4]["sums"] == pytest.approx(0.9)
    # The centre lies by the weights in force, one half each here, so z is 1 and the odds change by e^2.
    assert weights[5]["prose"] / weights[5]["sums"] == pytest.approx(0.1 / 0.9 * math.exp(2), rel=1e-6)


def test_nothing_measured_changes_nothing() -> None:
    trainer = _trainer()
    assert _fed(trainer, [None, None]) == [dict(trainer.plan.weights)] * 2
    assert _fed(_trainer(), [{"prose": 0.0, "sums": 0.0}]) == [dict(trainer.plan.weights)]


FLOORS = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0, 5), st.floats(1e-6, 1e3)), min_size=1)


@given(FLOORS, st.floats(0, 0.99))
def test_no_share_falls_below_the_floor(given: dict[str, tuple[float, float]], floor: float) -> None:
    weights, factors = ({name: pair[i] for name, pair in given.items()} for i in (0, 1))
    total = sum(weights.values())
    if total < 1e-6:
        return
    mixed, raised = floored(weights, factors, floor)
    shares = _shares(mixed)
    for name, share in shares.items():
        assert share >= min(floor, weights[name] / total) * (1 - 1e-6)
        if name not in raised:
            assert mixed[name] == weights[name] * factors[name], "the others keep their proportions"
    assert all(mixed[name] == 0 for name in weights if weights[name] == 0)


@given(FLOORS, st.floats(0, 0.99))
def test_factors_of_one_give_the_same_bits(given: dict[str, tuple[float, float]], floor: float) -> None:
    weights = {name: pair[0] for name, pair in given.items()}
    if sum(weights.values()) > 1e-6:
        assert floored(weights, dict.fromkeys(weights, 1.0), floor) == (weights, [])


# In the run ---------------------------------------------------------------------------------------------------------


def test_the_domain_that_the_feedback_comes_from_gains() -> None:
    domains = {
        "prose": {"path": "builtin:biographies", "options": {"people": 100}, "validation": 0.2, "weight": 2},
        "sums": {"path": "builtin:arithmetic", "options": {"count": 100}, "validation": 0.2, "weight": 1},
    }
    about_people = {"lives": {"path": "builtin:biographies", "options": {"people": 20, "seed": 9}}}
    for feedback, name, gains in ((FEEDBACK, "sums", "sums"), (about_people, "lives", "prose")):
        recipe = {"corpus": domains, "feedback": feedback, "optimizer": {"kind": "adamw", "lr": 3e-3}}
        trainer = _trainer(40, recipe, feedback=name, every=2, rate=0.3, rows=1.0, floor=0.05)
        assert trainer.stream.weights[gains] > {"prose": 2 / 3, "sums": 1 / 3}[gains] + 0.1, trainer.stream.weights
        assert min(trainer.stream.weights.values()) >= 0.05 - 1e-9


def test_it_multiplies_what_an_earlier_mixer_gives() -> None:
    trainer = _trainer(1, rate=1.0)
    part = _part(trainer)
    alone = _shares(dict(part.mix({"prose": 1, "sums": 1}, 0)))
    after = _shares(dict(part.mix({"prose": 3, "sums": 1}, 0)))
    assert alone["prose"] != pytest.approx(0.5, abs=1e-3)
    assert after["prose"] / after["sums"] == pytest.approx(3 * alone["prose"] / alone["sums"], rel=1e-9)


def test_it_keeps_the_promises_of_parts_with_every_setting_moved() -> None:
    settings = {"every": 1, "items": 4, "rows": 0.3, "floor": 0.2, "window": 2, "rate": 2.0, "precondition": True}
    check_part(ValueMixture.model_validate({"feedback": "sums", "parameters": "last:1", **settings}), RECIPE)
