"""Fisher information against an explicit loop over the stage's own windows; the penalty against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.steering.elastic_weight_consolidation import ElasticWeightConsolidation
from foretrain.trainer import Trainer
from tests.tiny import tiny_trainer

STAGES: dict[str, Any] = {
    "first": {"weights": {"prose": 1}, "share": 2},
    "second": {"weights": {"sums": 1}, "share": 3},
    "third": {"weights": {"prose": 1, "sums": 1}, "share": 3},
}
DATA: dict[str, Any] = {
    "corpus": {
        name: {"path": f"builtin:{kind}", "options": options, "validation": 0.2}
        for name, kind, options in (
            ("prose", "biographies", {"people": 150}),
            ("sums", "arithmetic", {"count": 120}),
        )
    },
    "stages": STAGES,
}


def _trainer(**settings: Any) -> tuple[Trainer, ElasticWeightConsolidation]:
    part = {"kind": "elastic_weight_consolidation", "windows": 1000, **settings}
    trainer = tiny_trainer(**DATA, documents="separate", steering=[part])
    found = trainer.steering[0]
    assert isinstance(found, ElasticWeightConsolidation)
    return trainer, found


def _weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.learner.masters.items()}


def _clone(vector: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in vector.items()}


def _fisher(trainer: Trainer, windows: list[Any]) -> dict[str, Tensor]:
    """One backward pass a window, by hand."""
    model = trainer.learner.model
    total = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for batch in windows:
        losses = trainer.objective.losses(trainer.objective.forward(model, batch), batch)
        gradients = torch.autograd.grad(losses.sum(), list(model.parameters()))
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient**2 / batch["mask"].sum() / len(windows)
    return total


def test_the_importance_is_the_fisher_information_of_the_windows_trained_on() -> None:
    trainer, part = _trainer()
    seen: list[dict[str, Tensor]] = []
    windows: list[Any] = []

    def step() -> None:
        batch = trainer.objective.prepare(trainer.stream.batch())
        windows.extend(batch.take(slice(row, row + 1)) for row in range(batch.rows))
        trainer.train_step()

    for ending in (2, 5):
        while trainer.step < ending:
            step()
        # A window whose documents are apart has fewer loss tokens than it is long.
        assert len({int(window["mask"].sum()) for window in windows}) > 1
        assert {trainer.stream.domains[int(window["domain"])] for window in windows} == {["prose", "sums"][len(seen)]}
        left, before = _weights(trainer), _clone(part._importance)
        seen.append(_fisher(trainer, windows))
        windows.clear()
        step()
        for name, fisher in seen[-1].items():
            added = part._importance[name] - before.get(name, 0.0)
            torch.testing.assert_close(added, fisher, rtol=2e-3, atol=1e-7 * float(fisher.max()) + 1e-12)
        if ending == 2:
            assert all(torch.equal(part._anchor[name], weight) for name, weight in left.items())
    assert min(float(fisher.max()) for fisher in seen[0].values()) > 0


def _penalty(quadratics: list[tuple[dict[str, Tensor], dict[str, Tensor]]], at: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the sum of penalties as it is written, by autograd in float64."""
    weights = {name: weight.double().requires_grad_() for name, weight in at.items()}
    total = sum(
        (importance[name].double() * (weight - anchor[name].double()) ** 2).sum()
        for importance, anchor in quadratics
        for name, weight in weights.items()
    )
    return dict(zip(weights, torch.autograd.grad(total, list(weights.values())), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(("anchors", "decay"), [("each", 1.0), ("each", 0.5), ("last", 1.0), ("last", 0.25)])
def test_the_gradient_is_that_of_a_penalty_for_every_past_stage(anchors: str, decay: float) -> None:
    trainer, part = _trainer(strength=0.7, anchors=anchors, decay=decay)
    for _ in range(2):
        trainer.train_step()
    first = _weights(trainer)
    trainer.train_step()
    importance = _clone(part._importance)
    for _ in range(2):
        trainer.train_step()
    second = _weights(trainer)
    trainer.train_step()
    fresh = {name: part._importance[name] - decay * importance[name] for name in importance}
    kept = {name: decay * tensor for name, tensor in importance.items()}
    generator = torch.Generator().manual_seed(1)
    at = {name: weight + torch.randn(weight.shape, generator=generator) * 0.1 for name, weight in second.items()}
    plain = {name: torch.randn(weight.shape, generator=generator) for name, weight in at.items()}
    expected = _penalty([(kept, first if anchors == "each" else second), (fresh, second)], at)
    for group in (None, slice(0, 2)):
        found = part.gradient(lambda group=None, at=None: _clone(plain), group, at)
        for name, gradient in found.items():
            scale = float(expected[name].abs().max())
            torch.testing.assert_close(
                gradient.double(), plain[name].double() + 0.7 * expected[name], rtol=1e-4, atol=1e-5 * scale + 1e-6
            )
    assert max(float(tensor.abs().max()) for tensor in expected.values()) > 1e-4


def test_the_penalty_is_told_and_holds_the_weights() -> None:
    moved = {}
    for strength in (0.0, 300.0):
        trainer, part = _trainer(strength=strength)
        lines = [trainer.train_step() for _ in range(5)]
        assert [line["elastic_weight_consolidation/penalty"] for line in lines[:3]] == [0.0, 0.0, 0.0]
        distance = sum(
            float((part._importance[name] * (weight - part._anchor[name]) ** 2).sum())
            for name, weight in _weights(trainer).items()
        )
        last = trainer.train_step()  # at the weights just measured, but for the stage that is taken in
        assert (last["elastic_weight_consolidation/penalty"] > 0) == (strength > 0)
        moved[strength] = distance
    assert moved[300.0] < 0.5 * moved[0.0]


def test_a_sample_is_of_the_ended_stage_alone_and_pure_in_the_seed() -> None:
    trainer, part = _trainer(windows=5)
    for _ in range(2):
        trainer.train_step()
    drawn = []
    for _ in range(3):
        trainer.train_step()
        drawn += [tuple(row) for row in trainer.stream.windows_at("sums", torch.arange(24).numpy())["tokens"].tolist()]
    sampled = [tuple(batch["tokens"][0].tolist()) for batch in part._sample(5)]
    assert len(set(sampled)) == 5 and set(sampled) <= set(drawn)
    assert sampled == [tuple(batch["tokens"][0].tolist()) for batch in part._sample(5)]
    assert sampled != [tuple(batch["tokens"][0].tolist()) for batch in part._sample(6)]
    while trainer.step < 8:
        trainer.train_step()
    mixed = [
        trainer.stream.domains[int(batch["domain"])] for batch in part.model_copy(update={"windows": 24})._sample(8)
    ]
    assert mixed.count("prose") == pytest.approx(12, abs=2) and mixed.count("sums") == pytest.approx(12, abs=2)


def test_what_a_side_branch_did_is_no_anchor() -> None:
    stages = {"first": {**STAGES["first"], "share": 4, "branch": 2}, "second": {**STAGES["second"], "share": 4}}
    part = {"kind": "elastic_weight_consolidation", "windows": 4}
    trainer = tiny_trainer(**{**DATA, "stages": stages}, steering=[part])
    for _ in range(2):
        trainer.train_step()
    before = _weights(trainer)
    for _ in range(3):
        trainer.train_step()
    found = trainer.steering[0]._anchor  # type: ignore[attr-defined]
    assert all(torch.equal(found[name], weight) for name, weight in before.items())


def test_steps_that_take_a_stage_in_are_of_their_own_kind() -> None:
    trainer, _ = _trainer()
    assert [trainer.kind(step) for step in range(8)] == ["start", "", "consolidation", "", "", "consolidation", "", ""]
    pace = trainer.rehearse(0, 0)
    assert pace.flops["consolidation"] > 1.5 * pace.flops[""]


def test_a_run_of_one_stage_is_refused() -> None:
    trainer = tiny_trainer(steering=[{"kind": "elastic_weight_consolidation"}])
    with pytest.raises(RequestError, match="protects what earlier stages learned, and this recipe has no second stage"):
        trainer.train_step()


def test_a_run_that_goes_on_from_another_protects_what_that_one_read() -> None:
    before = tiny_trainer(corpus=DATA["corpus"], seed=0)
    windows = []
    for _ in range(2):
        batch = before.objective.prepare(before.stream.batch())
        windows += [batch.take(slice(row, row + 1)) for row in range(batch.rows)]
        before.train_step()
    state = before.state_dict()
    trainer = tiny_trainer(corpus=DATA["corpus"], steering=[{"kind": "elastic_weight_consolidation"}])
    trainer.load_weights(state)
    trainer.load_seen(state, {"prose", "sums"})
    left = _weights(trainer)
    trainer.train_step()
    part: Any = trainer.steering[0]
    for name, fisher in _fisher(before, windows).items():
        torch.testing.assert_close(part._importance[name], fisher, rtol=2e-3, atol=1e-7 * float(fisher.max()) + 1e-12)
        assert torch.equal(part._anchor[name], left[name])
