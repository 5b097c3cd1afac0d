"""Look-ahead: what is tried is undone bit for bit, and a step along a gradient is the optimizer's."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import PrivateAttr

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.steering.base import Steering
from tests.tiny import tiny_trainer


class LooksAhead(Steering):
    """Takes two steps of the optimizer before every step, looks, and undoes them."""

    kind: Literal["looks_ahead"] = "looks_ahead"
    facts: ClassVar[Facts] = Facts(answers="update: nothing, it only looks")

    _context: Any = PrivateAttr(None)
    _seen: list[dict[str, float]] = PrivateAttr(default_factory=list)

    def setup(self, context: Any) -> None:
        self._context, self._seen = context, []

    def before_step(self, batch: Batch) -> None:
        context = self._context
        with context.undone():
            for rate in (None, 0.5):
                gradient, _ = context.learner.gradient_of(
                    lambda piece: context.objective.losses(
                        context.objective.forward(context.model, piece), piece
                    ).mean(),
                    [batch],
                    list(context.weights),
                )
                context.apply(gradient, rate)
            self._seen.append(context.evaluate("validation", tokens=256))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_is_tried_leaves_no_trace(kind: str, precision: str) -> None:
    changes = {"optimizer": {"kind": kind}, "precision": precision}
    plain, looking = tiny_trainer(**changes), tiny_trainer(**changes, steering=[{"kind": "looks_ahead"}])
    for _ in range(4):
        before, after = plain.train_step(), looking.train_step()
        assert before == after
    for name, weight in plain.learner.masters.items():
        assert torch.equal(weight, looking.learner.masters[name])
    seen = looking.steering[0]._seen
    assert len(seen) == 4 and all(set(losses) == {"prose", "sums"} for losses in seen)
    assert seen[0] != seen[1]


def test_a_step_along_the_gradient_is_the_steps_own() -> None:
    plain, apart = tiny_trainer(), tiny_trainer()
    batch = apart.objective.prepare(apart.stream.batch())
    total = float(batch["mask"].sum())

    def loss(piece: Batch) -> torch.Tensor:
        return apart.objective.losses(apart.objective.forward(apart.learner.model, piece), piece).sum() / total

    with apart.moving.undone():
        gradient, _ = apart.learner.gradient_of(loss, [batch], list(apart.learner.masters))
        norm = float(torch.nn.utils.get_total_norm(list(gradient.values())))
        clip = apart.plan.recipe.stability.clip or norm
        apart.context.apply({name: part * min(1.0, clip / norm) for name, part in gradient.items()})
        moved = {name: weight.detach().clone() for name, weight in apart.learner.masters.items()}
    plain.train_step()
    for name, weight in plain.learner.masters.items():
        assert torch.allclose(weight, moved[name], atol=2e-6)
        assert not torch.equal(moved[name], apart.learner.masters[name])


def test_a_rate_is_a_share_of_the_peak() -> None:
    trainer = tiny_trainer(optimizer={"kind": "adamw", "lr": 1e-2, "weight_decay": 0}, schedule={"kind": "constant"})
    gradient = {name: torch.ones_like(weight) for name, weight in trainer.learner.masters.items()}
    before = {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}
    with trainer.moving.undone():
        trainer.context.apply(gradient, 0.25)
        for name, weight in trainer.learner.masters.items():
            # Adam's first step is the rate, whatever the gradient's size.
            assert torch.allclose(before[name] - weight, torch.full_like(weight, 2.5e-3), rtol=1e-3, atol=1e-6)


def test_evaluating_a_split_that_nobody_has_is_refused() -> None:
    with pytest.raises(RequestError, match=r"corpus\.\w+\.steer: 0\.02"):
        tiny_trainer().context.evaluate()


def test_losses_by_domain_are_those_of_the_validation() -> None:
    trainer = tiny_trainer()
    figures = trainer.measure()
    found = trainer.context.evaluate("validation")
    assert found == {name: figures[f"validation/{name}/loss"] for name in ("prose", "sums")}
