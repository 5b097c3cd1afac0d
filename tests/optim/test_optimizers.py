from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from foretrain.models.bert import Bert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.roles import Role, parameter_roles
from foretrain.models.scratch import Scratch
from foretrain.optim.adamw import AdamW
from foretrain.optim.base import Optimizer
from foretrain.optim.muon import COEFFICIENTS, Muon, orthogonalise
from foretrain.parts import kinds

KINDS: list[type[Scratch]] = [Llama, Gpt2, Bert]
PARTS: list[Optimizer] = [AdamW(lr=3e-3), AdamW(lr=3e-3, decay_embeddings=True), Muon(lr=3e-3)]


def model_of(kind: type[Scratch] = Llama, tied: bool = True) -> nn.Module:
    part = kind(layers=2, width=64, heads=2, context=16, tied=tied)
    return part.build(part.config(48, {"pad": 1}), 0).train()


def build(part: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    return part.build(dict(model.named_parameters()), parameter_roles(model))


def batch(step: int) -> Tensor:
    return torch.randint(2, 48, (4, 16), generator=torch.Generator().manual_seed(step))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = batch(step)
        F.cross_entropy(model(input_ids=ids).logits.flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * (1 - step / 20)
        optimizer.step()
        optimizer.zero_grad()


def test_all_are_found() -> None:
    assert {"adamw", "muon"} <= set(kinds(Optimizer))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_in_one_named_group_and_moves(part: Optimizer, kind: type[Scratch]) -> None:
    model = model_of(kind)
    optimizer = build(part, model)
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len({group["name"] for group in optimizer.param_groups}) == len(optimizer.param_groups)
    assert {group["peak_lr"] for group in optimizer.param_groups} == {3e-3}
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, range(2))
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert still == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "part", [AdamW(weight_decay=0.3), AdamW(weight_decay=0.3, decay_embeddings=True), Muon(weight_decay=0.3)]
)
def test_weight_decay_acts_on_matrices_alone(kind: type[Scratch], tied: bool, part: Optimizer) -> None:
    model = model_of(kind, tied)
    roles = parameter_roles(model)
    optimizer = build(part, model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    decayed = {
        name for name, value in model.named_parameters() if bool((value == torch.tensor(2.0) * (1 - 1e-3 * 0.3)).all())
    }
    same = {name for name, value in model.named_parameters() if bool((value == 2.0).all())}
    kinds_that_decay = {"matrix", "embedding", "head"} if getattr(part, "decay_embeddings", False) else {"matrix"}
    assert decayed == {name for name, role in roles.items() if role.kind in kinds_that_decay}
    assert same == set(roles) - decayed


def adamw_by_hand(
    weight: Tensor, gradients: list[Tensor], rates: list[float], beta1: float, beta2: float, eps: float, decay: float
) -> Tensor:
    weight, mean, square = weight.double(), torch.zeros_like(weight).double(), torch.zeros_like(weight).double()
    for t, (gradient, lr) in enumerate(zip(gradients, rates, strict=True), 1):
        g = gradient.double()
        mean = beta1 * mean + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * g * g
        update = (mean / (1 - beta1**t)) / ((square / (1 - beta2**t)).sqrt() + eps)
        weight = weight - lr * update - lr * decay * weight
    return weight.float()


def series(*shape: int, steps: int = 6) -> tuple[Tensor, list[Tensor], list[float]]:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(*shape, generator=generator) for _ in range(steps)]
    return torch.randn(*shape, generator=generator), gradients, [1e-2 * (1 - t / steps) for t in range(steps)]


def run(part: Optimizer, role: Role, weight: Tensor, gradients: list[Tensor], rates: list[float]) -> Tensor:
    parameter = nn.Parameter(weight.clone())
    optimizer = part.build({"w": parameter}, {"w": role})
    for gradient, lr in zip(gradients, rates, strict=True):
        parameter.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("decays", [True, False])
def test_adamw_against_the_formula(decays: bool) -> None:
    weight, gradients, rates = series(7, 5)
    part = AdamW(lr=1e-2, beta1=0.8, beta2=0.97, eps=1e-3, weight_decay=0.2)
    role = Role("matrix" if decays else "norm", 0, "w")
    moved = run(part, role, weight, gradients, rates)
    assert torch.allclose(
        moved, adamw_by_hand(weight, gradients, rates, 0.8, 0.97, 1e-3, 0.2 if decays else 0.0), atol=1e-6
    )


def test_muons_other_parameters_move_as_under_adamw() -> None:
    weight, gradients, rates = series(9)
    part = Muon(lr=1e-2, beta1=0.8, beta2=0.97, eps=1e-3)
    moved = run(part, Role("norm", 0, "w"), weight, gradients, rates)
    assert torch.allclose(moved, adamw_by_hand(weight, gradients, rates, 0.8, 0.97, 1e-3, 0.0), atol=1e-6)


def polynomial_of_singular_values(matrix: Tensor, iterations: int) -> Tensor:
    """What the iteration should give, exactly: the quintic applied to each singular value."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / matrix.double().norm()
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_orthogonalisation_against_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)) * 5
    for matrix, result in zip(matrices, orthogonalise(matrices), strict=True):
        exact = polynomial_of_singular_values(matrix, 5)
        assert float((result.double() - exact).norm() / exact.norm()) < 0.02  # bf16
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        values = torch.linalg.svdvals(result.float())
        large = s / s.norm() > 0.01
        assert bool((values[: int(large.sum())] > 0.6).all() and (values < 1.3).all())
        # The nearest semi-orthogonal matrix points the same way.
        polar = u @ v
        cosine = F.cosine_similarity(result.float().flatten(), polar.flatten(), dim=0)
        assert float(cosine) > 0.95


def test_orthogonalisation_ignores_size_and_survives_zero() -> None:
    matrix = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonalise(matrix * 1e-6).float(), orthogonalise(matrix * 1e6).float(), atol=0.02)
    assert bool((orthogonalise(torch.zeros(1, 8, 12)) == 0).all())


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_muon_against_the_formula(shape: tuple[int, int]) -> None:
    weight, gradients, rates = series(*shape)
    moved = run(Muon(lr=1e-2, momentum=0.9, weight_decay=0.2), Role("matrix", 0, "w"), weight, gradients, rates)
    expected, momentum = weight.double(), torch.zeros(shape).double()
    for gradient, lr in zip(gradients, rates, strict=True):
        momentum = 0.9 * momentum + gradient.double()
        direction = polynomial_of_singular_values(gradient.double() + 0.9 * momentum, 5)
        expected = expected * (1 - lr * 0.2) - lr * 0.2 * math.sqrt(48) * direction
    assert torch.allclose(moved, expected.float(), atol=2e-3)
    assert float((moved - expected).norm() / (weight - expected).norm()) < 0.02


def test_muon_agrees_with_torch() -> None:
    weight, gradients, rates = series(16, 48)
    moved = run(Muon(lr=1e-2, weight_decay=0.2), Role("matrix", 0, "w"), weight, gradients, rates)
    parameter = nn.Parameter(weight.clone())
    theirs = torch.optim.Muon([parameter], lr=1e-2, weight_decay=0.2, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for gradient, lr in zip(gradients, rates, strict=True):
        parameter.grad = gradient.clone()
        theirs.param_groups[0]["lr"] = lr
        theirs.step()
    assert float((moved - parameter.detach()).norm() / (moved - weight).norm()) < 0.02


def test_muon_moves_matrices_as_far_as_adamw_does() -> None:
    weight, gradients, _ = series(64, 256, steps=1)
    far = run(Muon(lr=1.0, weight_decay=0), Role("matrix", 0, "w"), weight, gradients, [1.0]) - weight
    assert float(far.square().mean().sqrt()) == pytest.approx(0.2, rel=0.2)


def test_muon_takes_matrices_together_or_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def result() -> dict[str, Tensor]:
        model = model_of()
        train(model, build(Muon(lr=3e-3), model), range(2))
        return {name: value.detach().clone() for name, value in model.named_parameters()}

    together = result()
    monkeypatch.setattr("foretrain.optim.muon.TOGETHER", 1)
    apart = result()
    assert all(torch.allclose(together[name], apart[name], atol=1e-4) for name in together)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
def test_state_round_trips_exactly(part: Optimizer, tmp_path: Any) -> None:
    whole = model_of(Gpt2)
    train(whole, build(part, whole), range(6))
    first = model_of(Gpt2)
    optimizer = build(part, first)
    train(first, optimizer, range(3))
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state")
    saved = torch.load(tmp_path / "state", weights_only=True)
    second = model_of(Gpt2)
    second.load_state_dict(saved["model"])
    resumed = build(part, second)
    resumed.load_state_dict(saved["optimizer"])
    train(second, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.kind)
def test_moments_are_what_the_state_holds(part: Optimizer) -> None:
    model = model_of()
    optimizer = build(part, model)
    train(model, optimizer, range(1))
    roles = parameter_roles(model)
    for name, parameter in model.named_parameters():
        held = sum(value.numel() for key, value in optimizer.state[parameter].items() if key != "step")
        assert held == part.moments(roles[name]) * parameter.numel()


def test_parameters_without_a_gradient_stay() -> None:
    model = model_of()
    for part in PARTS:
        optimizer = build(part, model)
        optimizer.step()
        assert not optimizer.state


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (AdamW, {"beta2": 1.0}),
        (AdamW, {"weight_decay": -0.1}),
        (AdamW, {"lr": 0}),
        (AdamW, {"eps": 0}),
        (Muon, {"momentum": 1.0}),
        (Muon, {"iterations": 0}),
    ],
)
def test_settings_out_of_bounds(kind: type[Optimizer], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**fields)
