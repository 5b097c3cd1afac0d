"""The tensor memory of a step: by hand, by another tracker, and the same for every step, trial and process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed._tools.mem_tracker import MemTracker

from foretrain.tensor_memory import measured
from foretrain.trainer import Trainer
from tests.processes import start_python
from tests.tiny import tiny_trainer

ROWS, IN, HIDDEN, OUT = 64, 10, 300, 7


class Network:
    """A small network in training, and what it holds."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW, **named: Any) -> None:
        self.net = nn.Sequential(nn.Linear(IN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, OUT))
        self.optimizer = optimizer(self.net.parameters(), foreach=False, **named)
        self.inputs = torch.randn(ROWS, IN)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.net(self.inputs).sum().backward()
        self.optimizer.step()

    def measure(self) -> int:
        return measured(self.step, self)[1]


WEIGHTS = 4 * (IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT)
INPUTS, MIDDLE, SCALAR = 4 * ROWS * IN, 4 * ROWS * HIDDEN, 4


def test_by_hand() -> None:
    """The most is alive while the backward pass goes through tanh."""
    found = [Network(torch.optim.SGD).measure() for _ in range(2)]
    gradients = 4 * (HIDDEN * OUT + OUT)  # of the second layer
    tanh = 3 * MIDDLE  # what tanh keeps, the gradient of it, and the gradient before it
    loss = 2 * SCALAR  # which stands for its whole tensor of ones, and its gradient
    assert found == [WEIGHTS + INPUTS + gradients + tanh + loss] * 2


def test_the_state_that_the_first_step_makes_counts_from_its_start() -> None:
    plain, network = Network(torch.optim.SGD).measure(), Network()
    state = 2 * WEIGHTS + 4 * SCALAR  # both moments, and the number of steps of each parameter
    assert [network.measure() for _ in range(3)] == [plain + state] * 3


def test_a_buffer_that_is_replaced_every_step_counts_once_from_the_start() -> None:
    class Averaging(Network):
        shadow: list[Tensor] | None = None

        def step(self) -> None:
            super().step()
            with torch.no_grad():
                before = self.shadow or list(self.net.parameters())
                self.shadow = [0.9 * old + 0.1 * new for old, new in zip(before, self.net.parameters(), strict=True)]

    # The averages are there through the backward pass, where the most is alive.
    network, plain = Averaging(), Network().measure()
    assert [network.measure() for _ in range(3)] == [plain + WEIGHTS] * 3


def test_views_and_work_in_place_take_nothing() -> None:
    def step() -> Tensor:
        block = torch.zeros(1000)
        block.add_(1).view(10, 100).t().mul_(2)
        pieces = block.split(10)
        return pieces[3][2:4]  # a view keeps all of its storage

    assert measured(step)[1] == 4000
    assert measured(lambda: [torch.ones(100).sum() for _ in range(5)])[1] == 400 + 5 * SCALAR


def test_what_is_freed_only_by_the_garbage_collector_is_seen_alike_each_time() -> None:
    def step() -> None:
        for _ in range(3):
            ring: list[Any] = [torch.ones(100)]
            ring.append(ring)

    assert [measured(step)[1] for _ in range(3)] == [1200] * 3


def test_tensors_of_others_do_not_count() -> None:
    alone = Network().measure()
    held = [torch.ones(10_000), Network()]
    assert Network().measure() == alone and held


def test_transforms_and_sparse_tensors_are_no_obstacle() -> None:
    def step() -> float:
        rows = torch.func.vmap(torch.func.grad(lambda x: (x**2).sum()))(torch.ones(4, 5))
        return float(rows.to_sparse().to_dense().sum())

    result, found = measured(step)
    assert result == 40.0 and found >= 2 * 80


# Of a trainer ------------------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "micro": {"batch": {"tokens": 256, "micro": 64}},
}


def steps(trainer: Trainer, count: int = 3) -> list[int]:
    owners = (trainer.learner, trainer.optimizer, *trainer._stateful().values())
    return [measured(trainer.train_step, *owners)[1] for _ in range(count)]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_step_of_every_trial_gives_the_same(variant: str) -> None:
    trainer = tiny_trainer(8, **VARIANTS[variant])
    first = steps(trainer)
    assert len(set(first)) == 1
    trainer.stream.batch()
    assert steps(tiny_trainer(8, **{**VARIANTS[variant], "seed": 5}), 1) == first[:1], "beside one that is still alive"
    # What is known from shapes alone agrees within the factor of 2 that it promises.
    assert 0.5 < first[0] / trainer.plan.memory < 2


def test_another_tracker_agrees() -> None:
    trainer = tiny_trainer(8)
    (found, *_) = steps(trainer)
    tracker = MemTracker()
    tracker.track_external(trainer.learner.model, trainer.optimizer)
    with tracker:
        trainer.train_step()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    assert found == pytest.approx(peak["Total"], rel=0.02)


def test_a_smaller_micro_batch_takes_less() -> None:
    whole, micro = (steps(tiny_trainer(8, **VARIANTS[name]), 1)[0] for name in ("fp32", "micro"))
    assert micro < 0.6 * whole


def test_another_process_gives_the_same_and_measuring_changes_nothing() -> None:
    trainer, plain = tiny_trainer(8), tiny_trainer(8)
    line, _ = trainer.counted_step()
    assert line["loss"] == plain.train_step()["loss"]
    for name, weight in trainer.learner.masters.items():
        assert torch.equal(weight, plain.learner.masters[name])
    script = "from tests.tiny import tiny_trainer as t; x = t(8); x.counted_step(); print(x.tensor_memory())"
    process = start_python(script, [])
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and int(out) == trainer.tensor_memory() > 0
