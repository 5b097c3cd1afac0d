"""Nexus against explicit walks: its inner steps, its sum, its length, and its limits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.steering.nexus import Nexus
from foretrain.trainer import Trainer
from foretrain.vectors import cosine, norm
from tests.tiny import CONTEXT, tiny_trainer

FREE = {"clip": None}


def _trainer(**settings: Any) -> Trainer:
    return tiny_trainer(steering=[{"kind": "nexus", **settings}], stability=FREE)


def _order(step: int, count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed_from(seed, "nexus", step))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def _explicit(trainer: Trainer, stride: float, normalise: bool) -> tuple[dict[str, Tensor], float]:
    """The pseudo-gradient, stated again by subtracting on a copy of the model; and the sum of the groups' norms."""
    batch = trainer.objective.prepare(trainer.stream.batch())
    model, names = copy.deepcopy(trainer.learner.model), list(trainer.learner.masters)
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    summed = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    lengths = 0.0
    for number in _order(batch.step, 2):
        rows = batch["domain"] == number
        logits = model(input_ids=batch["inputs"][rows]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][rows].flatten())
        own = dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))
        share = float(rows.float().mean())
        length = torch.cat([tensor.flatten() for tensor in own.values()]).double().norm().item()
        lengths += share * length
        factor = 1 / length if normalise else share
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= stride * factor * own[name]
                summed[name] += factor * own[name]
    if stride and not normalise:
        with torch.no_grad():
            summed = {name: (start[name] - parameter) / stride for name, parameter in model.named_parameters()}
    return summed, lengths


def _assert_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], tolerance: float) -> None:
    scale = max(float(tensor.abs().max()) for tensor in wanted.values())
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance * scale, msg=name)


def _gradient(trainer: Trainer) -> dict[str, Tensor]:
    """What the optimizer was given in one step."""
    trainer.train_step()
    return {name: weight.grad.clone() for name, weight in trainer.learner.masters.items() if weight.grad is not None}


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_the_gradient_is_the_walk_of_unit_steps(gamma: float) -> None:
    trainer = _trainer(gamma=gamma)
    trainer.train_step()
    part: Any = trainer.steering[0]
    before = {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}
    trainer.train_step()
    update = norm({name: weight.detach() - before[name] for name, weight in trainer.learner.masters.items()})
    assert part.state_dict()["update"] == pytest.approx(update if gamma else 0.0, rel=1e-6)
    wanted, lengths = _explicit(trainer, gamma * update / 2, True)
    _assert_close(_gradient(trainer), {name: tensor * lengths / 2 for name, tensor in wanted.items()}, 2e-5)


def test_the_inner_steps_matter() -> None:
    here, ahead = _trainer(gamma=0.0), _trainer(gamma=5.0)
    assert all(torch.equal(a, b) for a, b in zip(_gradient(here).values(), _gradient(ahead).values(), strict=True)), (
        "the first step knows no update"
    )
    a, b = _gradient(here), _gradient(ahead)
    assert cosine(a, b) < 1 - 1e-4


@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_not_normalised_it_is_the_displacement_of_plain_inner_steps(gamma: float) -> None:
    trainer = _trainer(gamma=gamma, normalise=False)
    trainer.train_step()
    state = trainer.steering[0].state_dict()
    wanted, _ = _explicit(trainer, gamma * state["update"] / state["lengths"], False)
    # Stated by subtracting weights, which rounds.
    _assert_close(_gradient(trainer), wanted, 1e-3 if gamma else 1e-5)


def test_not_normalised_and_at_gamma_0_it_is_the_plain_gradient() -> None:
    _assert_close(_gradient(_trainer(gamma=0.0, normalise=False)), _gradient(tiny_trainer(stability=FREE)), 1e-5)


class Quadratic:
    """A problem of some sources, each 1/2 (x - c)' A (x - c), as `of` of a step; a row is a source."""

    def __init__(self, sources: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        roots = torch.randn(sources, 3, 3, generator=generator)
        self.hessians, self.centres = roots @ roots.mT, torch.randn(sources, 3, generator=generator)
        self.weight = nn.Parameter(torch.randn(3, generator=generator))
        self.calls: list[int] = []

    def own(self, row: int, weight: Tensor) -> Tensor:
        return self.hessians[row] @ (weight - self.centres[row])

    def __call__(self, group: Any = None, at: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        (row,) = group.tolist()
        self.calls.append(row)
        return {"x": self.own(row, self.weight.detach() if at is None else at["x"])}

    def walk(self, part: Nexus, step: int) -> Tensor:
        rows = len(self.centres)
        context: Any = SimpleNamespace(
            stream=SimpleNamespace(rows=rows, domains=tuple("abcd"[:rows])),
            learner=SimpleNamespace(precision="fp32"),
            weights={"x": self.weight},
            group=Group(),
            seed=0,
            record=lambda name, value: None,
        )
        kept = part.state_dict()
        part.setup(context)
        part.load_state_dict(kept)
        tensors = {"mask": torch.ones(rows, 1, dtype=torch.bool), "domain": torch.arange(rows)}
        places = torch.arange(step * rows, (step + 1) * rows)
        part.view(Batch(tensors, seed=0, step=step, positions=places, domains=tuple("abcd"[:rows])))
        return part.gradient(self)["x"]


def test_averaged_over_orders_it_ascends_the_inner_product_of_gradients() -> None:
    """For two quadratics exactly: G = g_1 + g_2 - s/2 grad <g_1, g_2>, half of it from each order."""
    problem, part = Quadratic(2), Nexus(normalise=False)
    first, second = (problem.own(row, problem.weight.detach()) for row in (0, 1))
    walks = {}
    for step in range(8):
        part.load_state_dict({"update": 1.0, "lengths": 3.0})
        walks[tuple(_order(step, 2))] = problem.walk(part, step)
    assert len(walks) == 2, "both orders came"
    # A source counts by its share of the tokens, 1/2, in the sum and in the inner steps.
    stride, share = 0.3 * 1.0 / 3.0, 0.5
    slope = problem.hessians[0] @ second + problem.hessians[1] @ first
    wanted = share * (first + second) - stride / 2 * share**2 * slope
    torch.testing.assert_close(sum(walks.values(), torch.zeros(3)) / 2, wanted, rtol=1e-5, atol=1e-6)


def test_where_sources_agree_it_is_the_plain_gradient() -> None:
    problem = Quadratic(4)
    problem.hessians, problem.centres = problem.hessians[:1].expand(4, 3, 3), problem.centres[:1].expand(4, 3)
    found = problem.walk(Nexus(gamma=0.0), 0)
    torch.testing.assert_close(found, problem.own(0, problem.weight.detach()))


def test_sources_count_alike_whatever_their_length() -> None:
    problem, part = Quadratic(3), Nexus(gamma=0.0)
    own = [problem.own(row, problem.weight.detach()) for row in range(3)]
    units = sum((tensor / tensor.norm() for tensor in own), torch.zeros(3))
    mean = sum(float(tensor.norm()) for tensor in own) / 3
    torch.testing.assert_close(problem.walk(part, 0), units * mean / 3)
    problem.hessians[1] *= 100
    louder = problem.walk(part, 0)
    torch.testing.assert_close(louder / louder.norm(), units / units.norm())


def test_the_order_is_drawn_anew_and_again_the_same() -> None:
    orders = []
    for step in [*range(6), *range(6)]:
        problem = Quadratic(4)
        problem.walk(Nexus(), step)
        assert sorted(problem.calls) == [0, 1, 2, 3]
        orders.append(tuple(problem.calls))
    assert orders[:6] == orders[6:] and len(set(orders)) > 3


def test_the_cosine_is_that_of_all_pairs() -> None:
    trainer = _trainer(gamma=0.0, groups=3)
    problem = trainer._problem(trainer.objective.prepare(trainer.stream.batch()))
    # Eight rows in three runs of successive ones.
    own = [{name: t.clone() for name, t in problem(rows).items()} for rows in (slice(0, 3), slice(3, 6), slice(6, 8))]
    pairs = [cosine(own[0], own[1]), cosine(own[0], own[2]), cosine(own[1], own[2])]
    assert trainer.train_step()["nexus/cosine"] == pytest.approx(sum(pairs) / 3, rel=1e-4)


def test_it_costs_what_a_plain_step_costs_and_says_the_same_loss() -> None:
    plain, walked = tiny_trainer(), _trainer(gamma=0.0)
    a, b = plain.counted_step()[0], walked.counted_step()[0]
    assert walked.meter.total == pytest.approx(plain.meter.total, rel=1e-6)
    assert b["loss"] == pytest.approx(a["loss"], rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"groups": 3, "normalise": False}])
def test_micro_batches_change_nothing(settings: dict[str, Any]) -> None:
    found = []
    for micro in (1, 3, 8):
        batch = {"tokens": 8 * CONTEXT, "micro": micro * CONTEXT}
        trainer = tiny_trainer(steering=[{"kind": "nexus", **settings}], batch=batch)
        for _ in range(3):
            trainer.train_step()
        found.append({name: weight.detach() for name, weight in trainer.learner.masters.items()})
    for other in found[1:]:
        for name in other:
            torch.testing.assert_close(found[0][name], other[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kinds", [["nexus", "sharpness_aware"], ["sharpness_aware", "nexus"]])
def test_it_nests_with_other_update_parts(kinds: list[str]) -> None:
    trainer, plain = tiny_trainer(steering=kinds), tiny_trainer()
    lines = [trainer.counted_step()[0] for _ in range(3)]
    assert lines[0]["loss"] == pytest.approx(plain.counted_step()[0]["loss"], rel=1e-6), "the first step has no update"
    assert trainer.meter.total == pytest.approx(6 * plain.meter.total, rel=0.01)


def test_a_skipped_step_leaves_no_update_behind() -> None:
    trainer = _trainer(gamma=1.0)
    trainer.train_step()
    part: Any = trainer.steering[0]
    part.view(trainer.objective.prepare(trainer.stream.batch()))
    part.gradient(trainer._problem(part._batch))
    state = part.state_dict()
    part.view(part._batch)
    part.after_step(1)
    assert part.state_dict() == state


def test_what_cannot_be_walked_through_is_said() -> None:
    one = {"prose": {"path": "builtin:biographies", "options": {"people": 50}, "validation": 0.2}}
    with pytest.raises(RequestError, match="the corpus has one; give it several, or say `groups: 4`"):
        tiny_trainer(steering=["nexus"], corpus=one)
    with pytest.raises(RequestError, match=r"groups \(9\) should be at most the 8 rows"):
        tiny_trainer(steering=[{"kind": "nexus", "groups": 9}])
    trainer = tiny_trainer(steering=["nexus"], precision="bf16")
    assert any("precision bf16 rounds much of them away" in text for text in trainer.warnings)
    assert not tiny_trainer(steering=["nexus"]).warnings
