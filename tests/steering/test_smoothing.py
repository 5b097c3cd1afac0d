"""Uniform smoothing and self-distillation: their formulas, token by token, and why the second is a null control."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from foretrain.batch import Batch
from foretrain.context import Context
from foretrain.errors import RequestError
from foretrain.objectives.base import Targets
from foretrain.objectives.outputs import Outputs
from foretrain.steering.base import Gradient
from foretrain.steering.self_distillation import SelfDistillation
from foretrain.steering.uniform_smoothing import UniformSmoothing
from foretrain.trainer import Trainer
from tests.tiny import CONTEXT, tiny_trainer

K, ALPHA = 5, 0.3


def trainer(kind: str | None = None, steps: int = 8, **settings: Any) -> Trainer:
    top = {key: settings.pop(key) for key in ("batch", "optimizer", "stability") if key in settings}
    return tiny_trainer(steps, steering=[{"kind": kind, **settings}] if kind else [], **top)


def taught(steps: int = 15) -> Trainer:
    """A trainer whose model's predictions are far from even."""
    one = trainer(steps=steps)
    for _ in range(steps):
        one.train_step()
    return one


def plain_vocabulary(one: Trainer) -> int:
    """How many logits the model gives a token."""
    return int(one.learner.model(input_ids=torch.zeros(1, 1, dtype=torch.int64)).logits.shape[-1])


def targets_of(part: UniformSmoothing | SelfDistillation, one: Trainer) -> tuple[Batch, Tensor, Targets]:
    """A batch, the learner's logits on it, and the targets that a part makes of them."""
    batch = one.objective.prepare(one.stream.batch())
    with torch.no_grad():
        logits = one.learner.model(input_ids=batch["inputs"]).logits
        outputs = one.objective.forward(one.learner.model, batch)
        made = part.targets(outputs, batch)
    assert made is not None
    return batch, logits, made


@pytest.mark.parametrize("kind", [UniformSmoothing, SelfDistillation])
def test_the_formula_token_by_token(kind: type[UniformSmoothing] | type[SelfDistillation]) -> None:
    part = kind(candidates=K, alpha=ALPHA)
    batch, logits, made = targets_of(part, taught())
    for row in (0, 5):
        for place in range(0, CONTEXT, 3):
            probabilities = [math.exp(value) for value in logits[row, place].double().tolist()]
            label = int(batch["labels"][row, place])
            others = sorted((v for v in range(len(probabilities)) if v != label), key=lambda v: -probabilities[v])
            chosen = [label, *others[: K - 1]]
            total = sum(probabilities[v] for v in chosen)
            expected = {
                v: ALPHA * (1 / K if kind is UniformSmoothing else probabilities[v] / total)
                + (1 - ALPHA if v == label else 0)
                for v in chosen
            }
            found = dict(zip(made.ids[row, place].tolist(), made.probabilities[row, place].tolist(), strict=True))
            assert found == pytest.approx(expected, abs=1e-6)
            assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    assert made.probabilities.dtype == torch.float32 and not made.probabilities.requires_grad


@pytest.mark.parametrize("kind", ["uniform_smoothing", "self_distillation"])
def test_the_step_trains_on_them(kind: str) -> None:
    one = trainer(kind, candidates=K, alpha=ALPHA)
    batch, logits, made = targets_of(one.steering[0], one)  # type: ignore[arg-type]
    whole = torch.zeros_like(logits).scatter_(-1, made.ids, made.probabilities)
    expected = -(whole * logits.log_softmax(-1)).sum(-1).mean()
    assert one.train_step()["loss"] == pytest.approx(float(expected), abs=1e-5)
    hard = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    assert abs(float(expected - hard)) > 1e-4


def gradient(one: Trainer, part: UniformSmoothing | SelfDistillation | None) -> Gradient:
    one.steering = [part] if part else []
    batch = one.objective.prepare(one.stream.batch())
    return {name: found.clone() for name, found in one._problem(batch)().items()}


def test_over_the_whole_vocabulary_self_distillation_only_scales_the_gradient() -> None:
    """p - q = (1 - alpha)(p - onehot) at every token, and so by every weight; fewer candidates point elsewhere."""
    one = taught()
    vocabulary = plain_vocabulary(one)
    plain = gradient(one, None)
    scaled = gradient(one, SelfDistillation(candidates=vocabulary, alpha=ALPHA))
    assert plain.keys() == scaled.keys()
    for name, tensor in plain.items():
        assert float(tensor.norm()) > 0
        assert torch.allclose(scaled[name], (1 - ALPHA) * tensor, atol=1e-5 * float(tensor.abs().max())), name
    batch, logits, made = targets_of(SelfDistillation(candidates=vocabulary, alpha=ALPHA), one)
    p, onehot = logits.softmax(-1), torch.nn.functional.one_hot(batch["labels"], vocabulary)
    q = torch.zeros_like(p).scatter_(-1, made.ids, made.probabilities)
    assert torch.allclose(p - q, (1 - ALPHA) * (p - onehot), atol=1e-6)

    def cosine(other: Gradient) -> float:
        a, b = (torch.cat([found[name].flatten() for name in plain]) for found in (plain, other))
        return float(torch.nn.functional.cosine_similarity(a, b, dim=0))

    few = cosine(gradient(one, SelfDistillation(candidates=K, alpha=ALPHA)))
    uniform = cosine(gradient(one, UniformSmoothing(candidates=K, alpha=ALPHA)))
    assert cosine(scaled) > 1 - 1e-5
    assert few < 0.95 and uniform < 0.95


def test_an_optimizer_that_sees_no_scale_does_not_see_self_distillation() -> None:
    """Adam without decay and clipping goes the plain way, to rounding; with uniform targets it does not."""
    how: dict[str, Any] = {"optimizer": {"weight_decay": 0, "eps": 1e-12}, "stability": {"clip": None}}
    plain = trainer(**how)
    null = trainer("self_distillation", candidates=384, alpha=ALPHA, **how)
    uniform = trainer("uniform_smoothing", candidates=384, alpha=ALPHA, **how)
    start = {name: weight.detach().clone() for name, weight in plain.learner.masters.items()}
    for one in (plain, null, uniform):
        for _ in range(8):
            one.train_step()

    def distance(other: dict[str, Any]) -> float:
        pairs = ((plain.learner.masters[name].detach(), other[name].detach()) for name in start)
        return math.sqrt(sum(float((a - b).square().sum()) for a, b in pairs))

    moved = distance(start)
    assert distance(null.learner.masters) < 0.01 * moved < 0.1 * moved < distance(uniform.learner.masters)


def test_softened_targets_soften_the_learner() -> None:
    def confidence(one: Trainer) -> float:
        for _ in range(25):
            one.train_step()
        batch = one.objective.prepare(one.stream.batch())
        with torch.no_grad():
            return float(one.learner.model(input_ids=batch["inputs"]).logits.softmax(-1).amax(-1).mean())

    fast: dict[str, Any] = {"optimizer": {"lr": 1e-2}}
    soft = confidence(trainer("uniform_smoothing", 25, alpha=0.6, **fast))
    assert soft < 0.8 * confidence(trainer(steps=25, **fast))


@pytest.mark.parametrize("kind", ["uniform_smoothing", "self_distillation"])
def test_it_may_end_early(kind: str) -> None:
    """Up to there it is what it is without an end, and then plain training, at the plain price."""
    one, whole, plain = trainer(kind, until=0.25), trainer(kind), trainer()
    assert [one.counted_step()[0]["loss"] for _ in range(2)] == [whole.counted_step()[0]["loss"] for _ in range(2)]
    plain.load_weights(one.state_dict())
    plain.stream.advance(2)
    plain.step = 2
    assert one.counted_step()[0]["loss"] == plain.counted_step()[0]["loss"]
    assert one.meter.per_kind[""] == plain.meter.per_kind[""] <= one.meter.per_kind["smoothed"]
    later = trainer(kind, 16, until=0.25)
    later.load_state_dict(one.state_dict())
    assert [later.kind(step) for step in (1, 2)] == ["smoothed", ""]


@pytest.mark.parametrize("kind", ["uniform_smoothing", "self_distillation"])
def test_micro_batches_change_nothing(kind: str) -> None:
    whole, pieces = trainer(kind), trainer(kind, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(4):
        assert whole.train_step()["loss"] == pytest.approx(pieces.train_step()["loss"], abs=1e-6)


def test_more_candidates_than_the_vocabulary_has_are_refused() -> None:
    vocabulary = plain_vocabulary(trainer())
    with pytest.raises(RequestError, match=rf"{vocabulary + 1} candidates .* the {vocabulary} ids of the vocabulary"):
        trainer("uniform_smoothing", candidates=vocabulary + 1)
    trainer("self_distillation", candidates=vocabulary).train_step()


def test_a_model_without_tokens_is_refused() -> None:
    context = SimpleNamespace(
        learner=SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace())),
        recipe=SimpleNamespace(model=SimpleNamespace(kind="vit")),
        objective=SimpleNamespace(kind="dino"),
    )
    with pytest.raises(RequestError, match="model 'vit' under objective 'dino' predicts none"):
        SelfDistillation().setup(cast(Context, context))


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"alpha": 1.1}, {"alpha": -0.1}, {"candidates": 1}):
        with pytest.raises(ValidationError):
            UniformSmoothing(**settings)  # type: ignore[arg-type]


def test_a_model_whose_logits_are_no_plain_product_gets_the_same_targets() -> None:
    part = SelfDistillation(candidates=K, alpha=ALPHA)
    batch, logits, made = targets_of(part, taught())
    again = part.targets(Outputs(logits=logits), batch)
    assert again is not None
    assert torch.equal(again.ids, made.ids) and torch.allclose(again.probabilities, made.probabilities, atol=1e-6)
