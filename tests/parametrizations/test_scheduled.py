"""What the seam holds for operations on a schedule, by a throwaway: factors made anew, their moments forgotten."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from pydantic import PrivateAttr

from foretrain.checkpoints.tree import decode, encode
from foretrain.context import Context
from foretrain.parametrizations.low_rank import LowRank, LowRankLinear
from foretrain.trainer import Trainer
from tests.tiny import tiny_trainer

EVERY = 3


class TryRestarts(LowRank):
    """Every third step the factors of each product become balanced ones of the same product, and Adam's state anew."""

    kind: Literal["try_restarts"] = "try_restarts"  # type: ignore[assignment]
    _context: Context | None = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        self._context = context

    def step_kind(self, step: int) -> str:
        return "restart" if step and step % EVERY == 0 else ""

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        if not self.step_kind(step):
            return
        assert self._context is not None
        from foretrain.moving import forget

        masters, names = self._context.weights, list[str]()
        for path, layer in self._context.model.named_modules():
            if isinstance(layer, LowRankLinear):
                up, down = masters[f"{path}.up"], masters[f"{path}.down"]
                u, s, vt = torch.linalg.svd(up.detach() @ down.detach(), full_matrices=False)
                rank = up.shape[1]
                up.data.copy_(u[:, :rank] * s[:rank].sqrt())
                down.data.copy_(s[:rank, None].sqrt() * vt[:rank])
                names += [f"{path}.up", f"{path}.down"]
        forget(optimizer, names)
        self._context.learner.refresh()

    def rate(self, step: int) -> float:
        return min(1.0, (step % EVERY + 1) / 2) if step >= EVERY else 1.0


def trainer_of(precision: str) -> Trainer:
    return tiny_trainer(
        8,
        parametrization="try_restarts",
        precision=precision,
        optimizer={"lr": 0.01},
        schedule={"kind": "constant", "warmup": 0},
    )


def test_the_function_stays_and_what_is_named_begins_anew() -> None:
    trainer = trainer_of("fp32")
    for _ in range(EVERY):
        trainer.counted_step()
    ids = trainer.stream.batch()["tokens"][:2, :32]
    with torch.no_grad():
        before = trainer.learner.model(input_ids=ids).logits
        trainer.parametrization.before_step(EVERY, trainer.optimizer)
        torch.testing.assert_close(trainer.learner.model(input_ids=ids).logits, before, rtol=0, atol=1e-4)
    masters = trainer.learner.masters
    for name, weight in masters.items():
        assert (weight in trainer.optimizer.state) == (not name.endswith((".up", ".down"))), name
    layer: Any = next(m for m in trainer.learner.model.modules() if isinstance(m, LowRankLinear))
    torch.testing.assert_close(layer.up.T @ layer.up, layer.down @ layer.down.T, rtol=0, atol=1e-5)  # balanced


def test_its_steps_are_a_kind_with_a_cost_of_their_own() -> None:
    trainer = trainer_of("fp32")
    rates = [trainer.counted_step()[0]["lr"] for _ in range(7)]
    assert rates == pytest.approx([0.01] * 3 + [0.005, 0.01, 0.01, 0.005])
    assert set(trainer.meter.per_kind) == {"", "restart"}
    products = sum(
        2 * layer.out_features * layer.in_features * layer.up.shape[1]
        for layer in trainer.learner.model.modules()
        if isinstance(layer, LowRankLinear)
    )
    assert trainer.meter.per_kind["restart"] - trainer.meter.per_kind[""] == products


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cut", [3, 4])
def test_it_resumes_exactly(precision: str, cut: int) -> None:
    whole, first, second = (trainer_of(precision) for _ in range(3))
    expected = [whole.counted_step()[0] for _ in range(7)]
    found = [first.counted_step()[0] for _ in range(cut)]
    structure, tensors = encode(first.state_dict())
    second.load_state_dict(decode(structure, {name: tensor.clone() for name, tensor in tensors.items()}))
    assert found + [second.counted_step()[0] for _ in range(7 - cut)] == expected
    assert all(torch.equal(second.learner.masters[n], w) for n, w in whole.learner.masters.items())
