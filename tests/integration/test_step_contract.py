"""The step contract: throwaway methods of each question, bit-exact under resume, free of the micro-batch size."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.checkpoints import Checkpointer
from foretrain.context import Context
from foretrain.objectives.base import Targets
from foretrain.objectives.causal_lm import CausalLM
from foretrain.objectives.outputs import Outputs
from foretrain.parts import Facts
from foretrain.steering.base import Gradient, GradientOf, Steering
from foretrain.trainer import Trainer
from tests.tiny import CONTEXT, tiny_trainer


class TryTopK(Steering):
    """Soft targets from detached logits: the true token and the learner's best others, mixed by a moving gate."""

    kind: Literal["try_top_k"] = "try_top_k"
    alpha: float = 0.3
    _seen: int = PrivateAttr(0)

    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        logits = outputs.logits().float()
        assert not logits.requires_grad
        others = logits.scatter(-1, batch["labels"][..., None], -math.inf).topk(3).indices
        ids = torch.cat([batch["labels"][..., None], others], dim=-1)
        gate = self.alpha * (1 + self._seen % 3) / 3
        learner = logits.gather(-1, ids).softmax(-1)
        truth = torch.zeros_like(learner)
        truth[..., 0] = 1
        return Targets(ids, (1 - gate) * truth + gate * learner)

    def after_step(self, step: int) -> None:
        self._seen += 1

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen = state["seen"]


class TryReweighting(Steering):
    """Whole-batch reweighting by each row's loss; a running mean of the losses is state."""

    kind: Literal["try_reweighting"] = "try_reweighting"
    temperature: float = 0.5
    facts: ClassVar[Facts] = Facts(needs=("batch_losses",))
    _mean: Tensor | None = PrivateAttr(None)
    _rows_seen: list[int] = PrivateAttr(default_factory=list)

    def weigh(self, losses: Tensor, batch: Batch) -> Tensor | None:
        self._rows_seen.append(losses.shape[0])
        rows = losses.sum(1) / batch["mask"].sum(1)
        self._mean = rows.mean() if self._mean is None else 0.9 * self._mean + 0.1 * rows.mean()
        weights = ((rows - self._mean) / self.temperature).softmax(0) * rows.shape[0]
        return weights[:, None]

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean = state["mean"]


class TryLookAhead(Steering):
    """The gradient at weights a small step up the gradient (sharpness-aware)."""

    kind: Literal["try_look_ahead"] = "try_look_ahead"
    radius: float = 0.05
    _context: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        self._context = context

    def gradient(
        self, of: GradientOf, group: slice | Tensor | None = None, at: Mapping[str, Tensor] | None = None
    ) -> Gradient:
        here = {name: g.clone() for name, g in of(group, at).items()}
        norm = torch.sqrt(sum((g.square().sum() for g in here.values()), torch.zeros(())))
        weights = self._context.weights if at is None else at
        return of(group, {name: weights[name].detach() + self.radius * g / norm for name, g in here.items()})


class TryTeacher(CausalLM):
    """Causal LM with an averaged teacher owned by the objective."""

    kind: Literal["try_teacher"] = "try_teacher"  # type: ignore[assignment]
    momentum: float = 0.9
    _teacher: Any = PrivateAttr(None)
    _student: Any = PrivateAttr(None)
    _head: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        self._student, self._teacher = context.model, copy.deepcopy(context.model).requires_grad_(False)
        self._head = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self._head.weight)

    def modules(self) -> Iterable[nn.Module]:
        return [self._head]

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        plain = super().losses(outputs, batch, targets)
        with torch.no_grad():
            teacher = self._teacher(input_ids=batch["inputs"]).logits
        assert outputs.hidden is not None
        student = outputs.hidden @ self._student.get_output_embeddings().weight.T
        gap = nn.functional.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none")
        return plain + self._head.weight[0, 0] * 0.5 * gap.sum(-1) * batch["mask"]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for mine, its in zip(self._teacher.parameters(), self._student.parameters(), strict=True):
            mine.lerp_(its, 1 - self.momentum)

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": dict(self._teacher.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._teacher.load_state_dict(state["teacher"])


class TryCurriculum(Steering):
    """Moves the mixture from one domain to the other; the counter is state."""

    kind: Literal["try_curriculum"] = "try_curriculum"
    _turns: int = PrivateAttr(0)

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        self._turns += 1
        share = min(1.0, 0.2 * self._turns)
        return {"prose": 1 - share, "sums": share}

    def state_dict(self) -> dict[str, Any]:
        return {"turns": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._turns = state["turns"]


METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "target": {"steering": ["try_top_k"]},
    "weigh": {"steering": ["try_reweighting"], "batch": {"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT}},
    "update": {"steering": ["try_look_ahead"]},
    "teacher": {"objective": "try_teacher"},
    "mix": {"steering": ["try_curriculum"]},
    "all": {
        "objective": "try_teacher",
        "steering": ["try_curriculum", "try_top_k", "try_reweighting", "try_look_ahead"],
        "batch": {"tokens": 8 * CONTEXT, "micro": 4 * CONTEXT},
    },
    "bf16": {"precision": "bf16", "steering": ["try_top_k"]},
    "autocast": {"precision": "autocast"},
    "muon": {"optimizer": {"kind": "muon"}},
    "dropout": {"model": {"kind": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": CONTEXT, "dropout": 0.1}},
}


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainer.learner.masters.items()}


def steps(trainer: Trainer, number: int) -> list[dict[str, Any]]:
    return [trainer.counted_step()[0] for _ in range(number)]


def assert_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor], tolerance: float = 0.0) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("method", METHODS)
def test_resume_is_bit_exact(method: str, tmp_path: Path) -> None:
    whole = tiny_trainer(**METHODS[method])
    lines = steps(whole, 6)
    first = tiny_trainer(**METHODS[method])
    steps(first, 3)
    checkpointer = Checkpointer(tmp_path, keep=1, best=False)
    checkpointer.save(3, first.state_dict())
    checkpointer.close()
    second = tiny_trainer(**METHODS[method])
    found = checkpointer.load_newest()
    assert found is not None
    second.load_state_dict(found[1])
    assert steps(second, 3) == lines[3:]
    assert_equal(weights_of(whole), weights_of(second))


@pytest.mark.parametrize("method", ["plain", "target", "weigh", "update", "teacher"])
def test_the_result_does_not_depend_on_micro_batches(method: str) -> None:
    changed = METHODS[method]
    results = []
    for micro in (1, 3, 8):
        trainer = tiny_trainer(**{**changed, "batch": {"tokens": 8 * CONTEXT, "micro": micro * CONTEXT}})
        lines = steps(trainer, 4)
        results.append((weights_of(trainer), [line["loss"] for line in lines]))
    for weights, losses in results[1:]:
        assert_equal(results[0][0], weights, 1e-5)
        assert losses == pytest.approx(results[0][1], abs=1e-5)


def test_reweighting_sees_the_whole_batch_under_micro_batches() -> None:
    trainer = tiny_trainer(**METHODS["weigh"])
    steps(trainer, 2)
    assert trainer.steering[0]._rows_seen == [8, 8]  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["target", "weigh", "update", "teacher", "mix"])
def test_each_method_changes_the_run(method: str) -> None:
    plain, steered = tiny_trainer(), tiny_trainer(**METHODS[method])
    steps(plain, 6)
    steps(steered, 6)
    a, b = weights_of(plain), weights_of(steered)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_look_ahead_equals_an_explicit_loop() -> None:
    """Sharpness-aware step, stated again with autograd on a copy of the model."""
    trainer = tiny_trainer(**METHODS["update"])
    batch = trainer.objective.prepare(trainer.stream.batch())
    model = copy.deepcopy(trainer.learner.model)

    def gradients() -> list[Tensor]:
        logits = model(input_ids=batch["inputs"]).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        return list(torch.autograd.grad(loss, list(model.parameters())))

    here = gradients()
    norm = torch.sqrt(sum((g.square().sum() for g in here), torch.zeros(())))
    with torch.no_grad():
        for parameter, g in zip(model.parameters(), here, strict=True):
            parameter += 0.05 * g / norm
    ahead = gradients()
    total = torch.sqrt(sum((g.square().sum() for g in ahead), torch.zeros(())))
    before = weights_of(trainer)
    line = steps(trainer, 1)[0]
    assert line["gradient_norm"] == pytest.approx(float(total), rel=1e-4)
    assert_equal(
        {name: parameter.grad for name, parameter in trainer.learner.masters.items()},  # type: ignore[misc]
        {name: g / max(1.0, float(total)) for name, g in zip(before, ahead, strict=True)},
        1e-5,
    )


def test_weights_looked_ahead_to_are_put_back_exactly() -> None:
    trainer = tiny_trainer(precision="bf16")
    before, copies = weights_of(trainer), {n: p.detach().clone() for n, p in trainer.learner.model.named_parameters()}
    with trainer.learner.at({name: value + 0.1 for name, value in before.items()}):
        assert not torch.equal(next(iter(trainer.learner.masters.values())), next(iter(before.values())))
    assert_equal(before, weights_of(trainer))
    assert_equal(copies, {n: p.detach() for n, p in trainer.learner.model.named_parameters()})


def test_an_objectives_own_module_is_trained() -> None:
    trainer = tiny_trainer(**METHODS["teacher"])
    steps(trainer, 3)
    assert trainer.learner.masters["objective.0.weight"].item() != 1.0


def test_rehearsal_leaves_no_trace() -> None:
    plain, rehearsed = tiny_trainer(**METHODS["all"]), tiny_trainer(**METHODS["all"])
    pace = rehearsed.rehearse(1, 2)
    assert pace.seconds > 0 and set(pace.flops) == {""}
    assert steps(plain, 4) == steps(rehearsed, 4)
    assert_equal(weights_of(plain), weights_of(rehearsed))


def test_looking_ahead_costs_twice_the_gradient() -> None:
    plain, ahead = tiny_trainer(), tiny_trainer(**METHODS["update"])
    steps(plain, 1)
    steps(ahead, 1)
    assert ahead.meter.total == pytest.approx(2 * plain.meter.total, rel=0.01)


def test_scoring_pass_of_whole_batch_weights_is_counted() -> None:
    plain = tiny_trainer()
    steps(plain, 1)
    scored = tiny_trainer(**METHODS["weigh"])
    steps(scored, 1)
    assert scored.meter.total == pytest.approx(4 / 3 * plain.meter.total, rel=0.02)
