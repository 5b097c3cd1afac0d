"""Predicted and realised: the figures against scipy, and that small steps do what value says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from foretrain.checks.trial import trial
from foretrain.errors import RequestError
from foretrain.feedback.text import TextSet
from foretrain.probes.one_step import OneStep, figures
from foretrain.trainer import Trainer
from tests.tiny import PROBLEMS

FEEDBACK = {"sums": {**PROBLEMS, "options": {"count": 40, "seed": 5}}}


@pytest.fixture(scope="module")
def trained() -> Trainer:
    trainer = trial({"feedback": FEEDBACK, "overlap": "warn", "optimizer": {"kind": "adamw", "lr": 3e-3}})
    for _ in range(20):
        trainer.train_step()
    return trainer


def _probe(trainer: Trainer, **settings: Any) -> OneStep:
    probe = OneStep(feedback="sums", **settings)
    probe.setup(trainer.context)
    return probe


def test_figures_are_those_of_a_regression() -> None:
    dice = np.random.default_rng(0)
    x = dice.normal(size=20)
    y = 0.3 * x + 0.2 * dice.normal(size=20) + 1
    found = figures(x.tolist(), y.tolist())
    assert found["correlation"] == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["slope"] == pytest.approx(stats.linregress(x, y).slope)
    assert found["predicted"] == pytest.approx(x.mean()) and found["realised"] == pytest.approx(y.mean())
    assert figures([1.0, 1.0], [1.0, 2.0])["correlation"] == 0.0
    assert figures([1.0, 2.0], [1.0, float("nan")]) == {"predicted": 1.5}


def test_value_foretells_steps(trained: Trainer) -> None:
    found = _probe(trained, rows=2).measure(trained.context)
    assert found["correlation"] > 0.8
    assert 0.3 < found["slope"] < 1.7


def test_on_the_same_items_small_steps_do_what_is_predicted(trained: Trainer) -> None:
    probe = _probe(trained, pairs=6, rows=2, eta=2e-4)
    first, _ = probe._halves
    probe._halves = first, first
    found = probe.measure(trained.context)
    assert found["correlation"] > 0.99
    assert found["slope"] == pytest.approx(1, abs=0.1)
    assert found["realised"] == pytest.approx(found["predicted"], rel=0.1, abs=2e-5)


def test_a_subset_foretells_less(trained: Trainer) -> None:
    whole = _probe(trained, pairs=6).measure(trained.context)
    part = _probe(trained, pairs=6, parameters="last:1").measure(trained.context)
    assert part["realised"] == whole["realised"], "the learner's steps are the same"
    assert abs(part["predicted"]) < abs(whole["predicted"])


def test_the_halves_share_no_item(trained: Trainer) -> None:
    whole = trained.context.feedback("sums")
    first, second = _probe(trained)._halves
    assert isinstance(whole, TextSet)
    assert torch.equal(torch.cat([first.tokens, second.tokens]), whole.tokens)
    assert first.items + second.items == whole.items and first.items == whole.items // 2


def test_mini_batches_are_of_one_domain_and_of_what_comes_later(trained: Trainer) -> None:
    before = trained.stream.state_dict()
    batches = _probe(trained, pairs=4, rows=3).batches(trained.context)
    assert trained.stream.state_dict() == before
    assert [set(batch["domain"].tolist()) for batch in batches] == [{0}, {1}, {0}, {1}]
    current = {tuple(row) for row in trained.stream.batch()["tokens"].tolist()}
    drawn = [tuple(row) for batch in batches for row in batch["tokens"].tolist()]
    assert not current.intersection(drawn) and len(set(drawn)) == len(drawn) == 12


def test_weights_and_gradients_are_put_back(trained: Trainer) -> None:
    masters = trained.learner.masters
    before = {name: (tensor.detach().clone(), tensor.grad) for name, tensor in masters.items()}
    _probe(trained, pairs=3, rows=1).measure(trained.context)
    for name, tensor in masters.items():
        assert torch.equal(before[name][0], tensor) and before[name][1] is tensor.grad


def test_one_item_cannot_be_halved(trained: Trainer) -> None:
    alone = {"sums": {**FEEDBACK["sums"], "limit": 1}}
    with pytest.raises(RequestError, match="cannot be divided"):
        trial({"feedback": alone, "overlap": "warn", "probes": [{"kind": "one_step", "feedback": "sums"}]})
