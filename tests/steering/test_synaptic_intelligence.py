"""The path integral against an explicit sum over the steps, and the importance against its definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.parts import Facts
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.steering.synaptic_intelligence import SynapticIntelligence
from foretrain.trainer import Trainer
from tests.steering.test_elastic_weight_consolidation import DATA, STAGES, _weights
from tests.tiny import tiny_trainer

GRADIENTS: list[Gradient] = []


class GradientSpy(Steering):
    """Keeps a copy of the gradient of every step."""

    kind: Literal["gradient_spy"] = "gradient_spy"
    facts: ClassVar[Facts] = Facts(answers="what was the gradient?")

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        found = of(group, at)
        GRADIENTS.append({name: tensor.clone() for name, tensor in found.items()})
        return found


class OnlyGroups(Steering):
    """Never asks for the gradient of a whole step."""

    kind: Literal["only_groups"] = "only_groups"
    facts: ClassVar[Facts] = Facts(answers="what if nobody asks for the whole?")

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        return of(slice(0, 4), at)


def _trainer(data: dict[str, Any] = DATA, **settings: Any) -> tuple[Trainer, SynapticIntelligence]:
    GRADIENTS.clear()
    steering = [{"kind": "synaptic_intelligence", **settings}, {"kind": "gradient_spy"}]
    trainer = tiny_trainer(**data, optimizer={"lr": 0.01}, stability={"clip": 0.3}, steering=steering)
    part = trainer.steering[0]
    assert isinstance(part, SynapticIntelligence)
    return trainer, part


def test_it_is_the_path_integral_over_the_movement_of_the_stage() -> None:
    trainer, part = _trainer(strength=500.0, damping=1e-4)
    importance: dict[str, Tensor] = {name: torch.zeros_like(weight) for name, weight in _weights(trainer).items()}
    weights = [_weights(trainer)]
    negative = 0
    for first, ending in ((0, 2), (2, 5)):
        while trainer.step <= ending:
            trainer.train_step()
            weights.append(_weights(trainer))
        for name, total in importance.items():
            # Not clipped (the limit is far below the norm), and without the penalty.
            moved = torch.stack([weights[step + 1][name] - weights[step][name] for step in range(first, ending)])
            path = -(torch.stack([GRADIENTS[step][name] for step in range(first, ending)]) * moved).sum(0)
            negative += int((path < 0).sum())
            total += path.clamp_min(0) / ((weights[ending][name] - weights[first][name]) ** 2 + 1e-4)
            torch.testing.assert_close(part._importance[name], total, rtol=1e-4, atol=1e-9)
            assert torch.equal(part._anchor[name], weights[ending][name])
    assert negative > 0


def test_the_penalty_pulls_to_what_the_last_stage_left() -> None:
    trainer, part = _trainer(strength=2.0)
    for _ in range(4):
        trainer.train_step()
    before = _weights(trainer)
    line = trainer.train_step()
    plain = GRADIENTS[-1]
    pulled = part.gradient(
        lambda group=None, at=None: {name: each.clone() for name, each in plain.items()}, None, before
    )
    penalty = 0.0
    for name, importance in part._importance.items():
        away = before[name] - part._anchor[name]
        torch.testing.assert_close(pulled[name], plain[name] + 2 * 2.0 * importance * away, rtol=1e-5, atol=1e-8)
        penalty += 2.0 * float((importance * away**2).sum())
    assert line["synaptic_intelligence/penalty"] == pytest.approx(penalty, rel=1e-4) and penalty > 0


def test_a_skipped_step_and_a_side_branch_add_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"first": {**STAGES["first"], "share": 5, "branch": 2}, "second": {**STAGES["second"], "share": 3}}
    trainer, part = _trainer({**DATA, "stages": stages})
    trainer.train_step()
    path = {name: tensor.clone() for name, tensor in part._path.items()}
    monkeypatch.setattr(trainer.guard, "judge", lambda step, loss, norm: "spike")
    trainer.train_step()
    assert all(torch.equal(part._path[name], tensor) for name, tensor in path.items())
    monkeypatch.undo()
    trainer.train_step()
    path = {name: tensor.clone() for name, tensor in part._path.items()}
    left = _weights(trainer)
    for _ in range(2):
        trainer.train_step()
    assert all(torch.equal(part._path[name], tensor) for name, tensor in path.items())
    trainer.train_step()
    assert all(torch.equal(part._anchor[name], weight) for name, weight in left.items())


def test_below_a_part_that_asks_for_groups_alone_it_warns() -> None:
    steering = [{"kind": "only_groups"}, {"kind": "synaptic_intelligence"}]
    trainer = tiny_trainer(**DATA, steering=steering)
    trainer.train_step()
    assert len(trainer.warnings) == 1
    assert "saw no gradient of a whole step" in trainer.warnings[0] and trainer.warnings[0].endswith("list it first.")


def test_a_run_of_one_stage_is_refused() -> None:
    with pytest.raises(RequestError, match="'synaptic_intelligence' protects what earlier stages learned"):
        tiny_trainer(steering=[{"kind": "synaptic_intelligence"}])
