from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.checks.promises import equal
from foretrain.errors import RequestError
from foretrain.models.roles import select
from foretrain.steering._mask_design import MaskDesign, inner
from foretrain.steering.learned_masks import LearnedMasks
from foretrain.steering.random_feedback_masks import RandomFeedbackMasks
from foretrain.vectors import cosine, dot, unit
from tests.steering.images import Told, crops

SMALL: dict[str, Any] = {"feedback": "pull", "channels": 4, "depth": 2, "rows": 1.0, "items": 4, "burn_in": 0.0}


def made(told: Told, kind: type[MaskDesign] = LearnedMasks, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    part = kind.model_validate({**SMALL, **changes})
    part.setup(told.context)
    part._designer.to(dtype)
    return part


def ssl_gradient(part: Any, told: Told, batch: Batch) -> dict[str, Tensor]:
    """The gradient of the self-supervised loss by the subset, through the designer's masks, by the plain path."""
    views = part.hidden(batch)
    objective, model, names = told.context.objective, told.learner.model, select(told.learner.roles, part.parameters)
    with told.learner.evaluating():
        loss = objective.losses(objective.forward(model, views), views).mean()
    found = torch.autograd.grad(loss, [told.learner.masters[name] for name in names])
    return dict(zip(names, found, strict=True))


def product(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def alignment(part: Any, told: Told, batch: Batch, direction: dict[str, Tensor]) -> float:
    gradient = ssl_gradient(part, told, batch)
    value = product(direction, gradient)
    return float(value if part.alignment == "dot" else value / product(gradient, gradient).sqrt())


def slope(function: Callable[[], float], parameters: list[Tensor], along: list[Tensor], step: float = 1e-5) -> float:
    """The derivative of a function along a direction, by central differences."""
    starts, values = [parameter.detach().clone() for parameter in parameters], []
    for sign in (1, -1):
        for parameter, start, part in zip(parameters, starts, along, strict=True):
            parameter.data = start + sign * step * part
        values.append(function())
    for parameter, start in zip(parameters, starts, strict=True):
        parameter.data = start
    return (values[0] - values[1]) / (2 * step)


@pytest.fixture(params=["dot", "cosine"])
def designed(request: pytest.FixtureRequest) -> tuple[Told, Any, Batch, dict[str, Tensor]]:
    told = Told()
    part = made(told, alignment=request.param, sparsity=0.0, tv=0.0)
    direction = unit(told.set.gradient(0, 4, part._names)[0])
    return told, part, crops(), {name: value.double() for name, value in direction.items()}


def test_the_meta_gradient_is_the_derivative_of_minus_the_alignment(designed: Any) -> None:
    told, part, batch, direction = designed
    gradients, found = part.meta_gradient(batch, direction)
    parameters = list(part._designer.parameters())
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        expected = -slope(lambda: alignment(part, told, batch, direction), parameters, along)
        got = float(sum((g * a).sum() for g, a in zip(gradients, along, strict=True)))
        assert got == pytest.approx(expected, rel=1e-5)
        assert abs(got) > 1e-7
    gradient = ssl_gradient(part, told, batch)
    assert found["value"] == pytest.approx(float(product(direction, gradient)), rel=1e-5)
    assert found["cosine"] == pytest.approx(cosine(direction, gradient), rel=1e-5)


def test_a_step_of_the_designer_raises_the_alignment(designed: Any) -> None:
    told, part, batch, direction = designed
    before = alignment(part, told, batch, direction)
    part.before_step(batch)
    assert alignment(part, told, batch, direction) > before


@pytest.mark.parametrize(("name", "weight"), [("sparsity", 2.0), ("tv", 0.7)])
def test_the_terms_for_size_and_smoothness_join_the_meta_loss(name: str, weight: float) -> None:
    told, batch = Told(), crops()
    settings: list[dict[str, Any]] = [{"sparsity": 0.0, "tv": 0.0}, {"sparsity": 0.0, "tv": 0.0, name: weight}]
    plain, part = (made(told, **changes) for changes in settings)
    direction = unit(told.set.gradient(0, 4, part._names)[0])
    without, joined = (each.meta_gradient(batch, direction)[0] for each in (plain, part))
    extra = [a - b for a, b in zip(joined, without, strict=True)]
    masks = part._designer(batch["globals"].flatten(0, 1))
    if name == "sparsity":
        term = weight * sum((mask.mean() - 0.6) ** 2 for mask in masks) / len(masks)
    else:
        across, down = masks[..., 1:] - masks[..., :-1], masks[..., 1:, :] - masks[..., :-1, :]
        term = weight * (across.abs().mean() + down.abs().mean())
    for got, expected in zip(extra, torch.autograd.grad(term, list(part._designer.parameters())), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_a_meta_step_leaves_the_learner_its_gradients_and_the_random_numbers_alone() -> None:
    told = Told()
    part = made(told)
    weights = {name: weight.detach().clone() for name, weight in told.learner.masters.items()}
    ones = {name: torch.ones_like(weight) for name, weight in weights.items()}
    for name, weight in told.learner.masters.items():
        weight.grad = ones[name].clone()
    drawn, designer = torch.get_rng_state(), [p.detach().clone() for p in part._designer.parameters()]
    part.before_step(crops())
    assert torch.equal(drawn, torch.get_rng_state())
    assert told.learner.model.training
    for name, weight in told.learner.masters.items():
        assert torch.equal(weight, weights[name]) and equal(weight.grad, ones[name]) and weight.requires_grad
    assert any(not torch.equal(a, b) for a, b in zip(designer, part._designer.parameters(), strict=True))
    assert told.set.adapted == 1


def test_bf16_learners_are_differentiated_in_fp32() -> None:
    exact, rough = Told(dtype=torch.float32), Told("bf16", dtype=torch.float32)
    found = []
    for told in (exact, rough):
        part = made(told, dtype=torch.float32)
        direction = unit(told.set.gradient(0, 4, part._names)[0])
        found.append(part.meta_gradient(crops(dtype=torch.float32), direction)[0])
    assert {parameter.dtype for parameter in rough.learner.model.parameters()} == {torch.bfloat16}
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_views_are_made_by_the_designer_as_it_has_become_and_are_detached() -> None:
    told = Told()
    part = made(told, designer_lr=0.05)
    batch = crops()
    before = part.hidden(batch)["globals"]
    part.before_step(batch)
    after = part.view(batch)
    assert not after["globals"].requires_grad
    assert not torch.allclose(before, after["globals"])
    masks = part._designer(batch["globals"].flatten(0, 1)).unflatten(0, (4, 2)).detach()
    kept = (masks > 0.999).expand_as(batch["globals"])
    torch.testing.assert_close(after["globals"][kept], batch["globals"][kept], rtol=0.01, atol=0.01)
    assert told.figures["learned_masks/keep"] == pytest.approx(float(masks.mean()), abs=1e-6)
    names = ("value", "cosine", "keep", "tv", "gradient_norm", "designer_gradient_norm")
    feedback = {"feedback/pull/loss", "feedback/pull/gradient_norm"}
    assert {f"learned_masks/{name}" for name in names} | feedback == set(told.figures)


def test_the_designer_waits_for_the_burn_in_and_learns_every_so_many_steps() -> None:
    told = Told(steps=20)
    part = made(told, burn_in=0.2, every=3)
    kinds = [part.step_kind(step) for step in range(8)]
    assert kinds == ["evaluator", "plain", "plain", "evaluator", "masked", "masked", "meta", "masked"]
    learned = []
    for step in range(8):
        batch, before = crops(step=step), part._designer.head.bias.detach().clone()
        part.before_step(batch)
        learned.append(not torch.equal(before, part._designer.head.bias))
        assert (part.view(batch) is batch) == (step < 4)
    assert learned == [kind == "meta" for kind in kinds]
    assert told.set.adapted == 3


@pytest.mark.parametrize("kind", [LearnedMasks, RandomFeedbackMasks])
def test_state_goes_round_and_steps_are_pure(kind: type[MaskDesign]) -> None:
    first, second = Told(), Told()
    one, other = made(first, kind), made(second, kind)
    for step in range(5):
        one.before_step(crops(step=step))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for step in range(5, 10):
        for part in (one, other):
            part.before_step(crops(step=step))
        assert torch.equal(one.view(crops(step=step))["globals"], other.view(crops(step=step))["globals"])
    assert first.set.adapted == second.set.adapted


def test_without_strength_views_are_bit_for_bit_those_of_the_stream() -> None:
    part = made(Told(), strength=0.0)
    batch = crops()
    part.before_step(batch)
    assert torch.equal(part.view(batch)["globals"], batch["globals"])


def test_the_control_is_led_by_noise_as_long_as_the_feedback_is() -> None:
    told = Told()
    part = made(told, RandomFeedbackMasks)
    feedback = unit({name: value.float() for name, value in told.set.gradient(0, 4, part._names)[0].items()})
    drawn, again, other = (part.direction(step).vector for step in (4, 4, 5))
    for name, value in feedback.items():
        assert float(drawn[name].norm()) == pytest.approx(float(value.norm()), rel=1e-5)
    assert abs(cosine(drawn, feedback)) < 0.2
    assert dot(drawn, again) == pytest.approx(dot(drawn, drawn))
    assert abs(cosine(drawn, other)) < 0.2


@pytest.mark.parametrize("what", ["feedback", "designer"])
def test_what_is_not_finite_leaves_views_plain_and_is_counted(what: str) -> None:
    told = Told(scale=float("nan") if what == "feedback" else 1.0)
    part = made(told)
    if what == "designer":
        with torch.no_grad():
            part._designer.head.bias.fill_(float("inf")).neg_().mul_(0.0)
    designer = part._designer.head.weight.detach().clone()
    for step in (0, 4):
        batch = crops(step=step)
        part.before_step(batch)
        assert part.view(batch) is batch
    assert told.figures["learned_masks/fallbacks"] >= 2
    assert len({text for text in told.warnings if "learned_masks" in text}) == 1
    assert torch.equal(designer, part._designer.head.weight)
    if what == "feedback":  # between meta steps the designer, which is as it was, goes on
        assert part.view(crops(step=5))["globals"].isfinite().all()


def test_a_zero_gradient_is_no_fault() -> None:
    for alignment_ in ("dot", "cosine"):
        told = Told(scale=0.0)
        part = made(told, alignment=alignment_)
        part.before_step(crops())
        assert "learned_masks/fallbacks" not in told.figures
        assert told.figures["learned_masks/cosine"] == 0


def test_what_cannot_work_is_refused_in_words() -> None:
    told = Told()
    with patch.object(told.learner, "sharded", True), pytest.raises(RequestError, match="distributed: replicate"):
        made(told)
    with pytest.raises(RequestError, match="makes none"):
        batch = crops()
        made(told).before_step(Batch({"a": batch["mask"]}, seed=0, step=0, positions=batch.positions, domains=()))
    with pytest.raises(RequestError, match="8 labelled images"):
        made(told, items=9)


def test_inner_is_differentiable() -> None:
    weight = torch.ones(3, requires_grad=True)
    inner({"a": torch.arange(3.0)}, {"a": weight**2}).backward()
    assert torch.equal(weight.grad, 2 * torch.arange(3.0))  # type: ignore[arg-type]
