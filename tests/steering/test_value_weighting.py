"""Weights by value: against explicit gradients, their bounds, and that they depend on neither micro-batch nor rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foretrain.batch import Batch
from foretrain.checks import check_part
from foretrain.checks.trial import CONTEXT, trial
from foretrain.errors import RequestError
from foretrain.steering._weights import effective_share
from foretrain.steering.value_weighting import ValueWeighting, levelled, weights_of
from foretrain.trainer import Trainer
from foretrain.value.measuring import feedback_direction
from foretrain.value.reference import sample_gradients, token_gradients
from tests.tiny import FEEDBACK

RECIPE: dict[str, Any] = {"feedback": FEEDBACK, "overlap": "warn"}


def _trainer(steps: int = 0, **settings: Any) -> Trainer:
    changes = {key: settings.pop(key) for key in ("batch",) if key in settings}
    part = {"kind": "value_weighting", "feedback": "sums", "every": 2, "parameters": "last:1", "items": 8, **settings}
    trainer = trial({**RECIPE, "steering": [part], **changes})
    for _ in range(steps):
        trainer.train_step()
    return trainer


def _weights(trainer: Trainer) -> tuple[Batch, Tensor]:
    """The batch of the step to come and the weights that it gets."""
    part, batch = trainer.steering[0], trainer.objective.prepare(trainer.stream.batch())
    part.before_step(batch)
    weights = part.weigh(torch.zeros_like(batch["mask"], dtype=torch.float32), batch)
    assert weights is not None
    return batch, weights.expand(batch["mask"].shape).double()


def _values(trainer: Trainer, batch: Batch) -> Tensor:
    """The value of each token, by one backward pass each."""
    part: Any = trainer.steering[0]
    names = part._names
    direction = feedback_direction(trainer.context, "sums", batch.step, part.items, names).vector
    return token_gradients(
        lambda: trainer.objective.losses(trainer.objective.forward(trainer.learner.model, batch), batch),
        [trainer.learner.masters[name] for name in names],
        [direction[name] for name in names],
    )


def _expected(values: Tensor, temperature: float) -> Tensor:
    """exp(z / temperature) at mean 1, by a loop over units of equal size."""
    numbers = values.tolist()
    mean = sum(numbers) / len(numbers)
    spread = (sum((value - mean) ** 2 for value in numbers) / len(numbers)) ** 0.5
    raw = [2.718281828459045 ** ((value - mean) / spread / temperature) for value in numbers]
    return torch.tensor([weight * len(raw) / sum(raw) for weight in raw], dtype=torch.float64)


# The formula --------------------------------------------------------------------------------------------------------


def test_tokens_are_weighed_by_their_own_gradients() -> None:
    trainer = _trainer(6, level="token", temperature=5.0, clip=1000.0, floor=0.01)
    batch, weights = _weights(trainer)
    expected = _expected(_values(trainer, batch).flatten(), 5.0)
    assert (weights.flatten() - expected).abs().max() < 2e-3
    assert weights.std() > 0.1


def test_samples_are_weighed_by_their_own_gradients() -> None:
    trainer = _trainer(6, level="sample", temperature=2.0, clip=1000.0, floor=0.01)
    batch, weights = _weights(trainer)
    names = trainer.steering[0]._names  # type: ignore[attr-defined]

    def loss(logits: Tensor, ids: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits[:-1], ids[1:])

    direction = feedback_direction(trainer.context, "sums", batch.step, 8, names).vector
    gradients = sample_gradients(trainer.learner.model, loss, names, batch["tokens"])
    values = sum((gradients[name] * direction[name]).flatten(1).double().sum(1) for name in names)
    assert isinstance(values, Tensor)
    assert (weights[:, 0] - _expected(values, 2.0)).abs().max() < 2e-3
    assert (weights == weights[:, :1]).all() and weights[:, 0].std() > 0.1


def test_domains_are_weighed_by_the_mean_of_their_tokens() -> None:
    trainer = _trainer(6, level="domain", temperature=3.0, clip=1000.0, floor=0.01)
    batch, weights = _weights(trainer)
    values, domain = _values(trainer, batch), batch["domain"]
    means = [float(values[domain == number].mean()) for number in (0, 1)]
    shares = [float((domain == number).double().mean()) for number in (0, 1)]
    centre = sum(share * mean for share, mean in zip(shares, means, strict=True))
    spread = sum(share * (mean - centre) ** 2 for share, mean in zip(shares, means, strict=True)) ** 0.5
    raw = torch.tensor([(mean - centre) / spread / 3.0 for mean in means]).double().exp()
    expected = (raw / sum(share * float(one) for share, one in zip(shares, raw, strict=True)))[domain]
    assert (weights[:, 0] - expected).abs().max() < 2e-3
    best = int(means[1] > means[0])
    assert (weights[domain == best] > 1).all() and (weights[domain != best] < 1).all()


# Bounds -------------------------------------------------------------------------------------------------------------

SCORES = st.lists(st.floats(-50, 50), min_size=1, max_size=40)


@given(SCORES, st.randoms(use_true_random=False), st.floats(1, 100), st.floats(0.01, 1))
def test_weights_keep_their_bounds(scores: list[float], dice: Any, clip: float, floor: float) -> None:
    counts = torch.tensor([float(dice.randint(0, 3)) for _ in scores], dtype=torch.float64)
    given = torch.tensor(scores, dtype=torch.float64)
    weights, power = weights_of(given, counts, clip=clip, floor=floor)
    assert 0 <= power <= 1
    assert weights.max() <= clip * (1 + 1e-9) and weights.min() >= (1 - 1e-9) / clip
    assert effective_share(weights, counts) >= floor - 1e-9
    if counts.sum() > 0:
        assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1, abs=1e-6)
    order = given.argsort()
    assert (weights[order].diff() >= -1e-12).all(), "a higher score never weighs less"


def test_weights_are_tempered_no_further_than_needed() -> None:
    scores = torch.linspace(-3, 3, 50, dtype=torch.float64)
    ones = torch.ones_like(scores)
    free = effective_share(levelled(scores, ones, 100.0), ones)
    weights, power = weights_of(scores, ones, clip=100.0, floor=0.7)
    assert free < 0.5 and 0 < power < 1
    assert effective_share(weights, ones) == pytest.approx(0.7, abs=1e-3)
    assert torch.allclose(weights, levelled(power * scores, ones, 100.0))
    untouched, whole = weights_of(scores, ones, clip=100.0, floor=free - 1e-6)
    assert whole == 1.0 and torch.equal(untouched, levelled(scores, ones, 100.0))


def test_equal_values_weigh_one() -> None:
    ones = torch.ones(7, dtype=torch.float64)
    weights, power = weights_of(torch.zeros_like(ones), ones, clip=4.0, floor=1.0)
    assert torch.equal(weights, ones) and power == 1.0


# In the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["token", "domain"])
def test_it_keeps_the_promises_of_parts(level: str) -> None:
    part = ValueWeighting(feedback="sums", level=level, every=2, parameters="last:1", items=4)  # type: ignore[arg-type]
    check_part(part, RECIPE)


@pytest.mark.parametrize("level", ["token", "sample", "domain"])
def test_micro_batches_change_nothing(level: str) -> None:
    whole, pieces = (_trainer(level=level, batch={"tokens": 8 * CONTEXT, "micro": micro * CONTEXT}) for micro in (8, 3))
    for step in range(4):
        a, b = whole.train_step(), pieces.train_step()
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert ("value_weighting/ess" in a) == (step % 2 == 0 or level == "domain")
        for name in ("ess", "spread", "mean"):
            if (name := f"value_weighting/{name}") in a:
                assert a[name] == pytest.approx(b[name], rel=1e-2)


def test_weights_act_on_the_gradient() -> None:
    plain, weighted = trial(RECIPE), _trainer(every=1, temperature=0.3)
    for trainer in (plain, weighted):
        trainer.train_step()
    assert plain.figures["loss"] == weighted.figures["loss"], "the loss that is reported is unweighted"
    assert plain.figures["gradient_norm"] != pytest.approx(weighted.figures["gradient_norm"], rel=1e-3)


def test_between_measurements_only_domains_have_weights() -> None:
    for level, kept in (("token", False), ("sample", False), ("domain", True)):
        trainer = _trainer(1, level=level)
        part, batch = trainer.steering[0], trainer.objective.prepare(trainer.stream.batch())
        assert [part.step_kind(step) for step in range(4)] == ["value", "", "value", ""]
        part.before_step(batch)
        weights = part.weigh(torch.zeros(8, CONTEXT), batch)
        assert (weights is not None) == kept
        if weights is not None:
            assert float((weights * batch["mask"]).sum() / batch["mask"].sum()) == pytest.approx(1, abs=1e-6)
            assert len(weights.unique()) == 2


def test_feedback_that_fails_leaves_the_step_alone() -> None:
    trainer = _trainer()
    with torch.no_grad():
        next(iter(trainer.learner.masters.values())).fill_(float("nan"))
    part, batch = trainer.steering[0], trainer.objective.prepare(trainer.stream.batch())
    part.before_step(batch)
    assert part.weigh(torch.zeros(8, CONTEXT), batch) is None
    assert "not finite" in trainer.warnings[0]


def test_a_feedback_that_is_not_there_is_named() -> None:
    with pytest.raises(RequestError, match="did you mean 'sums'"):
        _trainer(feedback="sum")
