"""SAM against an explicit step, its kinds of step, and that nothing is left of it at rho 0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foretrain.trainer import Trainer
from tests.tiny import CONTEXT, tiny_trainer

DROPOUT = {"kind": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": CONTEXT, "dropout": 0.2}


def _trainer(rho: float, every: int = 1, **changes: Any) -> Trainer:
    return tiny_trainer(
        steering=[{"kind": "sharpness_aware", "rho": rho, "every": every}], stability={"clip": None}, **changes
    )


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}


def test_the_gradient_is_that_of_weights_a_step_up() -> None:
    trainer = _trainer(0.3)
    batch = trainer.objective.prepare(trainer.stream.batch())
    model = copy.deepcopy(trainer.learner.model)

    def gradients() -> list[Tensor]:
        logits = model(input_ids=batch["inputs"]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        return list(torch.autograd.grad(loss, list(model.parameters())))

    here = gradients()
    length = torch.cat([tensor.flatten() for tensor in here]).norm()
    with torch.no_grad():
        for parameter, tensor in zip(model.parameters(), here, strict=True):
            parameter += 0.3 * tensor / length
    wanted = gradients()
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(here, wanted, strict=True))
    loss = trainer.train_step()["loss"]
    for weight, tensor in zip(trainer.learner.masters.values(), wanted, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, tensor, rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(tiny_trainer().train_step()["loss"], rel=1e-6), "the loss is that of today's weights"


@pytest.mark.parametrize("changes", [{}, {"model": DROPOUT}, {"precision": "bf16"}])
def test_at_rho_0_it_is_the_plain_run_bit_for_bit(changes: dict[str, Any]) -> None:
    plain, same = tiny_trainer(stability={"clip": None}, **changes), _trainer(0.0, **changes)
    for _ in range(3):
        assert plain.train_step()["loss"] == same.train_step()["loss"]
    a, b = _weights(plain), _weights(same)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_some_steps_look_up_and_cost_twice() -> None:
    plain, some = tiny_trainer(), _trainer(0.3, every=3)
    costs = []
    for _ in range(6):
        before = some.meter.total
        some.counted_step()
        costs.append(some.meter.total - before)
    plain.counted_step()
    assert costs[0] == costs[3] == pytest.approx(2 * plain.meter.total, rel=0.01)
    assert costs[1] == costs[2] == costs[4] == pytest.approx(plain.meter.total, rel=1e-6)
    assert [some.kind(step) for step in range(4)] == ["up", "", "", "up"]


def test_a_gradient_of_nothing_goes_nowhere() -> None:
    trainer = _trainer(0.3)
    part: Any = trainer.steering[0]
    calls = []

    def of(group: Any = None, at: Any = None) -> dict[str, Tensor]:
        calls.append(at)
        return {name: torch.zeros_like(weight) for name, weight in trainer.learner.masters.items()}

    found = part.gradient(of)
    assert calls == [None] and all(bool((tensor == 0).all()) for tensor in found.values())
