"""DINO: its loss against an explicit loop, teacher and centre against their formulas, and that nothing else matters."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

pytest.importorskip("kornia", reason="kornia is not installed (extra [vision])")

from foretrain.batch import Batch
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.learner import Learner
from foretrain.objectives.dino import Dino, Scores
from foretrain.step import Problem

SMALL = {"prototypes": 24, "hidden": 16, "bottleneck": 8, "layers": 2, "local_crops": 2, "freeze_last_layer": 0}
ROWS = 6


def batch(step: int = 0, rows: int = ROWS, channels: int = 1) -> Batch:
    pixels = torch.randint(0, 256, (rows, channels, 16, 16), generator=torch.Generator().manual_seed(step))
    positions = torch.arange(step * rows, (step + 1) * rows)
    return Batch({"pixels": pixels.byte()}, seed=5, step=step, positions=positions, domains=("a",))


class Trial:
    """A learner and its objective, without a run around them."""

    def __init__(self, precision: Any = "fp32", total: int = 10, group: Group | None = None, **settings: Any) -> None:
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=16,
            patch_size=4,
            num_channels=1,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ViTModel(config, add_pooling_layer=False).train()
        self.learner = Learner(model, precision, group or Group())
        self.figures: dict[str, float] = {}
        self.objective = Dino.model_validate({**SMALL, **settings})
        self.objective.setup(
            SimpleNamespace(  # type: ignore[arg-type]
                recipe=SimpleNamespace(distributed="replicate"),
                seed=0,
                total_steps=total,
                device=torch.device("cpu"),
                model=self.learner.model,
                weights=self.learner.masters,
                group=self.learner.group,
                record=self.figures.__setitem__,
            )
        )
        for number, module in enumerate(self.objective.modules()):
            self.learner.adopt(module, f"objective.{number}")
        self.optimizer = torch.optim.SGD(self.learner.masters.values(), lr=0.5)

    def step(self, number: int, micro: int = ROWS) -> float:
        prepared = self.objective.prepare(batch(number))
        problem = Problem(prepared, self.objective, self.learner, (), micro)
        self.learner.install(problem())
        self.optimizer.step()
        self.learner.refresh()
        self.objective.after_step(number)
        return float(problem.loss) / ROWS

    def weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.learner.masters.items()}

    def scores(self, prepared: Batch) -> Scores:
        return self.objective.forward(self.learner.model, prepared)


def head_by_hand(head: nn.Module, features: Tensor) -> Tensor:
    weights = dict(head.named_parameters())
    hidden = nn.functional.gelu(features @ weights["mlp.0.weight"].T + weights["mlp.0.bias"])
    reduced = hidden @ weights["mlp.2.weight"].T + weights["mlp.2.bias"]
    prototypes = weights["last.weight"] / weights["last.weight"].norm(dim=1, keepdim=True)
    return reduced / reduced.norm(dim=1, keepdim=True) @ prototypes.T


def test_the_loss_equals_a_loop_over_all_pairs_of_views() -> None:
    trial = Trial(global_crops=3, teacher_momentum=0.5)
    for number in range(2):
        trial.step(number)
    prepared = trial.objective.prepare(batch(2))
    assert prepared["globals"].shape == (ROWS, 3, 1, 16, 16) and prepared["locals"].shape == (ROWS, 2, 1, 8, 8)
    assert prepared["mask"].shape == (ROWS, 1) and prepared["mask"].all()
    found = trial.objective.losses(trial.scores(prepared), prepared)
    state, model, head = trial.objective.state_dict(), trial.learner.model, trial.objective.modules()[0]  # type: ignore[index]
    teacher, teacher_head = copy.deepcopy(model), copy.deepcopy(head)
    own = {name: weight for name, weight in state["teacher"].items() if not name.startswith("objective.")}
    teacher.load_state_dict(own)
    teacher_head.load_state_dict({name: state["teacher"][f"objective.0.{name}"] for name in head.state_dict()})

    def scores(network: nn.Module, projection: nn.Module, image: Tensor) -> Tensor:
        states = network(pixel_values=image[None], interpolate_pos_encoding=True).last_hidden_state
        return head_by_hand(projection, states[:, 0])[0]

    with torch.no_grad():
        for row in range(ROWS):
            globals_, locals_ = list(prepared["globals"][row]), list(prepared["locals"][row])
            losses = []
            for t, seen_by_teacher in enumerate(globals_):
                given = ((scores(teacher, teacher_head, seen_by_teacher) - state["centre"]) / 0.04).softmax(0)
                for s, seen_by_student in enumerate(globals_ + locals_):
                    if s != t:
                        said = (scores(model, head, seen_by_student) / 0.1).log_softmax(0)
                        losses.append(-(given * said).sum())
            assert len(losses) == 3 * 4
            torch.testing.assert_close(found[row, 0], torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)


def test_the_teacher_follows_the_masters_along_a_cosine() -> None:
    trial = Trial(teacher_momentum=0.8, total=4)
    expected = trial.weights()
    for number in range(4):
        trial.step(number)
        momentum = 1 - 0.2 * (math.cos(math.pi * number / 4) + 1) / 2
        expected = {name: momentum * expected[name] + (1 - momentum) * w for name, w in trial.weights().items()}
        found = trial.objective.state_dict()["teacher"]
        assert found.keys() == expected.keys() and any(name.startswith("objective.0.") for name in found)
        for name, weight in found.items():
            torch.testing.assert_close(weight, expected[name])
    assert not torch.allclose(found["layernorm.bias"], trial.weights()["layernorm.bias"])


def test_the_teacher_is_made_of_the_fp32_masters_under_bf16() -> None:
    trial = Trial("bf16", teacher_momentum=0.0, total=1000)
    trial.step(0)
    found, masters = trial.objective.state_dict()["teacher"], trial.weights()
    name = "embeddings.patch_embeddings.projection.weight"
    assert found[name].dtype == torch.float32
    torch.testing.assert_close(found[name], masters[name], atol=0, rtol=0)
    assert not torch.equal(masters[name], masters[name].bfloat16().float())
    assert trial.scores(trial.objective.prepare(batch(1))).student.dtype == torch.float32


def test_the_centre_is_a_running_mean_of_the_teachers_scores() -> None:
    trial = Trial(centre_momentum=0.7)
    centre = torch.zeros(24)
    for number in range(3):
        with torch.no_grad():
            teacher = trial.scores(trial.objective.prepare(batch(number))).teacher
        centre = 0.7 * centre + 0.3 * teacher.mean((0, 1))
        trial.step(number, micro=2)
        torch.testing.assert_close(trial.objective.state_dict()["centre"], centre, atol=1e-6, rtol=1e-4)


def test_the_centre_is_of_the_rows_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Trial()
    alone.step(0)
    summed: list[Tensor] = []

    def sum_tensors(self: Group, tensors: Iterable[Tensor]) -> None:
        """As if another rank had twice what this one has."""
        for tensor in tensors:
            tensor.mul_(3)
            summed.append(tensor)

    several = Trial()
    several.objective.prepare(batch(0))
    several.scores(several.objective.prepare(batch(0)))
    monkeypatch.setattr(Group, "sum_tensors", sum_tensors)
    several.objective.after_step(0)
    assert len(summed) == 4
    torch.testing.assert_close(several.objective.state_dict()["centre"], alone.objective.state_dict()["centre"])
    assert several.figures["dino/teacher_entropy"] == pytest.approx(alone.figures["dino/teacher_entropy"], rel=1e-4)


def test_passes_that_do_not_train_leave_the_centre_alone() -> None:
    trial, other = Trial(), Trial()
    trial.step(0)
    with other.learner.evaluating():
        other.scores(other.objective.prepare(batch(7)))  # validation, a meta step
    with torch.no_grad():
        other.scores(other.objective.prepare(batch(0)))  # scoring before the backward
    other.scores(other.objective.prepare(batch(9)))  # a step that was skipped: nothing came after it
    other.step(0)
    torch.testing.assert_close(
        trial.objective.state_dict()["centre"], other.objective.state_dict()["centre"], atol=0, rtol=0
    )


def test_gradients_and_state_do_not_depend_on_micro_batches() -> None:
    whole, pieces = Trial(), Trial()
    for number in range(3):
        assert whole.step(number) == pytest.approx(pieces.step(number, micro=1), rel=1e-4)
        assert whole.figures == pytest.approx(pieces.figures, rel=1e-4)
    for name, weight in whole.weights().items():
        torch.testing.assert_close(pieces.weights()[name], weight, atol=1e-5, rtol=1e-3)


def test_it_goes_on_exactly_where_it_stood() -> None:
    whole, first, second = Trial(), Trial(), Trial()
    losses = [whole.step(number) for number in range(5)]
    for number in range(3):
        first.step(number)
    state = copy.deepcopy({"objective": first.objective.state_dict(), "weights": first.weights()})
    second.learner.load_state_dict({**second.learner.state_dict(), **state["weights"]})
    second.objective.load_state_dict(state["objective"])
    assert [second.step(number) for number in (3, 4)] == losses[3:]
    a, b = whole.objective.state_dict(), second.objective.state_dict()
    assert all(torch.equal(a["teacher"][name], b["teacher"][name]) for name in a["teacher"])
    assert torch.equal(a["centre"], b["centre"]) and a["step"] == b["step"] == 5
    untouched = copy.deepcopy(state["objective"]["teacher"])
    assert all(torch.equal(untouched[name], w) for name, w in first.objective.state_dict()["teacher"].items())


def test_weights_given_after_the_set_up_are_the_teachers_first() -> None:
    trial = Trial()
    with torch.no_grad():
        for weight in trial.learner.masters.values():
            weight.mul_(1.5)
    trial.scores(trial.objective.prepare(batch()))
    for name, weight in trial.objective.state_dict()["teacher"].items():
        assert torch.equal(weight, trial.learner.masters[name])
    assert Trial().objective.state_dict()["teacher"] == {}


def test_figures_say_which_way_a_teacher_collapses() -> None:
    for scores, entropy, divergence in (
        (torch.zeros(ROWS, 2, 24), math.log(24), 0.0),  # uniform
        (torch.eye(24)[0].expand(ROWS, 2, 24), 0.0, math.log(24)),  # all alike
        (torch.eye(24)[:12].view(6, 2, 24), 0.0, math.log(2)),  # sharp, and half of the prototypes are used
    ):
        trial = Trial(teacher_temperature=0.01)
        trial.objective._seen.update(enumerate(scores))
        trial.objective.after_step(0)
        assert trial.figures["dino/teacher_entropy"] == pytest.approx(entropy, abs=1e-4)
        assert trial.figures["dino/teacher_kl"] == pytest.approx(divergence, abs=1e-4)


def test_the_last_layer_is_frozen_at_first_and_the_temperature_moves() -> None:
    trial = Trial(freeze_last_layer=0.2, warmup_temperature=0.02, warmup=4, teacher_temperature=0.06)
    last = "objective.0.last.weight"
    start = trial.weights()[last]
    kinds, temperatures = [], []
    for number in range(6):
        kinds.append(trial.objective.step_kind(number))
        temperatures.append(trial.objective._temperature())
        trial.step(number)
        assert torch.equal(trial.weights()[last], start) == (number < 2)
    assert kinds == ["frozen_last_layer"] * 2 + [""] * 4
    assert temperatures == pytest.approx([0.02, 0.03, 0.04, 0.05, 0.06, 0.06])


def test_the_learner_can_be_differentiated_twice() -> None:
    trial = Trial()
    prepared = trial.objective.prepare(batch())
    views = prepared["globals"].requires_grad_()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        losses = trial.objective.losses(trial.scores(prepared.with_(globals=views)), prepared)
        weight = dict(trial.learner.model.named_parameters())["layernorm.weight"]
        (gradient,) = torch.autograd.grad(losses.sum(), weight, create_graph=True)
        direction = torch.linspace(-1, 1, 16)
        (by_views,) = torch.autograd.grad((gradient * direction).sum(), views)

    def slope(shift: float) -> float:
        shifted = prepared.with_(globals=(views + shift * moved).detach())
        (g,) = torch.autograd.grad(trial.objective.losses(trial.scores(shifted), shifted).sum(), weight)
        return float(g @ direction)

    moved = by_views / by_views.norm()
    assert (slope(5e-3) - slope(-5e-3)) / 1e-2 == pytest.approx(float(by_views.norm()), rel=0.05)


def test_no_local_crops() -> None:
    trial = Trial(local_crops=0)
    assert math.isfinite(trial.step(0))
    assert trial.scores(trial.objective.prepare(batch())).student.shape == (ROWS, 2, 24)


def test_sizes_of_crops() -> None:
    assert Dino()._crop_sizes(28, 4) == (28, 12) and Dino()._crop_sizes(8, 8) == (8, 8)
    assert Dino(global_size=24, local_size=8)._crop_sizes(32, 4) == (24, 8)
    with pytest.raises(RequestError, match=r"local_size: 10 pixels.*the nearest sizes are 8 and 12"):
        Trial(local_size=10)


def test_what_cannot_be_trained_or_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def setup(strategy: str, world: int) -> None:
        recipe = SimpleNamespace(distributed=strategy)
        Dino().setup(SimpleNamespace(recipe=recipe, group=Group(world=world)))  # type: ignore[arg-type]

    with pytest.raises(RequestError, match="distributed: replicate"):
        setup("shard", 2)
    monkeypatch.setitem(__import__("sys").modules, "kornia", None)
    with pytest.raises(RequestError, match=r"foretrain\[vision\]"):
        setup("replicate", 1)
