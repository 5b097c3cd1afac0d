"""Weights by loss: against the published formula as a loop, their bounds, and the global batch."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foretrain.checks import check_part
from foretrain.checks.trial import CONTEXT, trial
from foretrain.errors import RequestError
from foretrain.steering._weights import effective_share, entropy_share, tempered
from foretrain.steering.dynamic_loss_reweighting import STRATEGIES, DynamicLossReweighting, normalised, softmax
from foretrain.trainer import Trainer

ROWS = 8


def _trainer(**settings: Any) -> Trainer:
    changes = {"batch": settings.pop("batch")} if "batch" in settings else {}
    return trial({"steering": [{"kind": "dynamic_loss_reweighting", "burn_in": 0, **settings}], **changes})


def _weigh(trainer: Trainer, losses: Tensor, mask: Tensor | None = None) -> Tensor | None:
    """The weights of made-up losses [rows, length] in the step to come."""
    mask = torch.ones_like(losses, dtype=torch.bool) if mask is None else mask
    batch = trainer.objective.prepare(trainer.stream.batch()).with_(mask=mask)
    return trainer.steering[0].weigh(losses * mask, batch)


def _published(losses: list[float], strategy: str, r: float, delta: float = 1.0) -> list[float]:
    """w of every sequence, sum 1, as the paper has it."""
    low, high = min(losses), max(losses)
    scores = []
    for loss in losses:
        h = 2 * delta * loss / (high - low) - delta * (high + low) / (high - low)
        if strategy == "linear_upper":
            scores.append(min(h + delta, delta))
        elif strategy == "quadratic":
            scores.append(1 - h**2 / delta**2)
        else:
            scores.append(abs(h))
    exponents = [math.exp((score - max(scores)) / r) for score in scores]
    return [each / sum(exponents) for each in exponents]


# The formula --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("r", [0.4, 1.0])
def test_rows_are_weighed_as_published(strategy: str, r: float) -> None:
    losses = torch.rand(ROWS, CONTEXT, generator=torch.Generator().manual_seed(3)) + torch.arange(ROWS)[:, None] ** 1.5
    weights = _weigh(_trainer(strategy=strategy, temperature=r), losses)
    assert weights is not None and weights.shape == (ROWS, 1)
    expected = _published(losses.double().mean(1).tolist(), strategy, r)
    assert weights[:, 0].tolist() == pytest.approx([ROWS * each for each in expected], rel=1e-5)
    assert weights.std() > 0.05


def test_what_each_strategy_prefers() -> None:
    order = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])
    found = {}
    for strategy in STRATEGIES:
        weights = _weigh(_trainer(strategy=strategy), order[:, None].expand(ROWS, CONTEXT))
        assert weights is not None
        found[strategy] = weights[:, 0]
    upper = found["linear_upper"]
    assert (upper[:5].diff() > 0).all() and (upper[4:] == upper[4]).all(), "rises to the middle of the range, then flat"
    assert found["quadratic"].argmax() == 4 and found["extremes"].argmin() == 4
    assert found["extremes"][0] == pytest.approx(float(found["extremes"][7]))


def test_rows_of_few_tokens_count_less() -> None:
    lengths = torch.tensor([1, 2, 4, 8, 16, 32, 32, 0])
    mask = torch.arange(CONTEXT)[None] < lengths[:, None]
    means = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 2.5, 1.5, 9.0])
    weights = _weigh(_trainer(), means[:, None].expand(ROWS, CONTEXT), mask)
    assert weights is not None
    expected = _published(means[:7].tolist(), "linear_upper", 0.4)  # a row without loss tokens is not in the batch
    scale = sum(length * each for length, each in zip(lengths.tolist(), expected, strict=False)) / float(lengths.sum())
    assert weights[:7, 0].tolist() == pytest.approx([each / scale for each in expected], rel=1e-5)
    assert float((weights * mask).sum() / mask.sum()) == pytest.approx(1, abs=1e-6)


def test_tokens_are_weighed_in_a_range_that_no_single_token_sets() -> None:
    losses = torch.rand(ROWS, CONTEXT, generator=torch.Generator().manual_seed(4)) * 4
    weights = _weigh(_trainer(level="token"), losses)
    ordered = sorted(losses.double().flatten().tolist())
    low, high = ordered[2], ordered[-3]  # 1 % of 255 places from each end
    scores = [min(max(-1.0, min(1.0, 2 * (x - low) / (high - low) - 1)) + 1, 1.0) for x in losses.flatten().tolist()]
    raw = [math.exp(score / 0.4) for score in scores]
    assert weights is not None and weights.shape == (ROWS, CONTEXT)
    assert weights.flatten().tolist() == pytest.approx([len(raw) * each / sum(raw) for each in raw], rel=1e-4)

    garbage = losses.clone()
    garbage[0, 0] = 400.0
    other = _weigh(_trainer(level="token"), garbage)
    assert other is not None and (other - weights).abs().max() < 0.2, "one token does not squash the others"


# Bounds -------------------------------------------------------------------------------------------------------------


def _at(scores: Tensor, counts: Tensor, power: float) -> Tensor:
    return softmax(power * scores, counts)


LOSSES = st.lists(st.floats(0, 50), min_size=1, max_size=40)


@given(LOSSES, st.randoms(use_true_random=False), st.floats(0.01, 10), st.floats(0.01, 1), st.sampled_from([0.0, 0.01]))
def test_weights_keep_their_bounds(
    losses: list[float], dice: Any, temperature: float, floor: float, tail: float
) -> None:
    counts = torch.tensor([float(dice.randint(0, 3)) for _ in losses], dtype=torch.float64)
    counts[0] = 1.0
    h = normalised(torch.tensor(losses, dtype=torch.float64), counts, tail)
    assert h.min() >= -1 and h.max() <= 1
    for shape in STRATEGIES.values():
        scores = shape(h)
        assert scores.min() >= 0 and scores.max() <= 1
        weights, power = tempered(partial(_at, scores / temperature, counts), counts, floor)
        assert 0 <= power <= 1 and effective_share(weights, counts) >= floor - 1e-9
        assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1)
        assert effective_share(weights, counts) - 1e-9 <= entropy_share(weights, counts) <= 1 + 1e-9


@given(LOSSES)
def test_the_default_floor_leaves_published_temperatures_alone(losses: list[float]) -> None:
    counts = torch.ones(len(losses), dtype=torch.float64)
    h = normalised(torch.tensor(losses, dtype=torch.float64), counts, 0.0)
    for shape in STRATEGIES.values():
        assert effective_share(softmax(shape(h) / 0.38, counts), counts) >= 0.25


def test_equal_losses_weigh_one() -> None:
    weights = _weigh(_trainer(), torch.full((ROWS, CONTEXT), 2.3))
    assert weights is not None and torch.equal(weights, torch.ones(ROWS, 1))


def test_the_entropy_of_two_of_four() -> None:
    weights = torch.tensor([2.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    ones = torch.ones_like(weights)
    assert entropy_share(weights, ones) == pytest.approx(0.5) == effective_share(weights, ones)


def test_a_small_effective_sample_is_raised_to_the_floor_and_said_once() -> None:
    losses = torch.zeros(ROWS, CONTEXT)
    losses[0] = 5.0
    trainer = _trainer(temperature=0.1, floor=0.6)
    for _ in range(2):
        weights = _weigh(trainer, losses)
    assert weights is not None and weights.argmax() == 0
    assert effective_share(weights[:, 0].double(), torch.ones(ROWS).double()) == pytest.approx(0.6, abs=1e-3)
    assert trainer.figures["dynamic_loss_reweighting/ess"] == pytest.approx(0.6, abs=1e-3)
    assert 0 < trainer.figures["dynamic_loss_reweighting/power"] < 1
    assert trainer.figures["dynamic_loss_reweighting/largest"] == pytest.approx(float(weights.max()))
    assert len(trainer.warnings) == 1 and "floor" in trainer.warnings[0]


def test_losses_that_are_not_finite_give_no_weights() -> None:
    losses = torch.ones(ROWS, CONTEXT)
    losses[3, 3] = math.nan
    assert _weigh(_trainer(), losses) is None


# In the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"level": "token"}, {"strategy": "extremes", "temperature": 0.05, "burn_in": 2}])
def test_it_keeps_the_promises_of_parts(settings: dict[str, Any]) -> None:
    check_part(DynamicLossReweighting(**settings))


@pytest.mark.parametrize("level", ["row", "token"])
def test_micro_batches_change_nothing(level: str) -> None:
    whole, pieces = (_trainer(level=level, batch={"tokens": 8 * CONTEXT, "micro": micro * CONTEXT}) for micro in (8, 3))
    for _ in range(4):
        a, b = whole.train_step(), pieces.train_step()
        for name in ("loss", "gradient_norm", "dynamic_loss_reweighting/ess", "dynamic_loss_reweighting/largest"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), name


def test_the_scoring_pass_of_micro_batches_is_counted() -> None:
    plain = trial({})
    plain.counted_step()
    for micro, cost in ((8, 1.0), (2, 4 / 3)):
        scored = _trainer(batch={"tokens": 8 * CONTEXT, "micro": micro * CONTEXT})
        scored.counted_step()
        assert scored.meter.total == pytest.approx(cost * plain.meter.total, rel=0.02)


def test_weights_act_on_the_gradient_alone_and_after_the_burn_in() -> None:
    plain, weighted = trial({}), _trainer(burn_in=2)
    for step in range(4):
        a, b = plain.train_step(), weighted.train_step()
        assert (a["gradient_norm"] == b["gradient_norm"]) == (step < 2)
        assert ("dynamic_loss_reweighting/ess" in b) == (step >= 2)
        if step == 2:
            assert a["loss"] == b["loss"], "the loss that is reported is unweighted"


def test_the_gradient_is_that_of_the_weighted_loss() -> None:
    trainer = _trainer(level="row")
    batch = trainer.objective.prepare(trainer.stream.batch())
    losses = trainer.objective.losses(trainer.objective.forward(trainer.learner.model, batch), batch)
    weights = _published(losses.detach().double().mean(1).tolist(), "linear_upper", 0.4)
    loss = sum(weight * row for weight, row in zip(weights, losses.mean(1), strict=True))
    assert isinstance(loss, Tensor)
    expected = torch.autograd.grad(loss, list(trainer.learner.model.parameters()))
    norm = float(torch.stack([each.norm() for each in expected]).norm())
    assert trainer.train_step()["gradient_norm"] == pytest.approx(norm, rel=1e-4)


def test_it_weighs_images_too() -> None:
    from foretrain.checks.trial import IMAGES

    trainer = trial({**IMAGES, "steering": [{"kind": "dynamic_loss_reweighting", "burn_in": 0}]})
    assert trainer.train_step()["dynamic_loss_reweighting/ess"] < 1


def test_a_strategy_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match="linear_upper"):
        _trainer(strategy="upper")
