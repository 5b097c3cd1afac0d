"""The planner and the meter: any budget as a whole number of steps, and what each step cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from foretrain import flops, tensor_memory
from foretrain.errors import RequestError
from foretrain.recipe import Budget

T = TypeVar("T")
LARGEST = 10_000_000_000
"""No run has more steps than this; a budget that asks for more is a slip of the pen."""


class Meter:
    """Counts FLOPs per kind of step: the first step of each kind is measured, later ones of that kind cost the same.

    Everything inside the step is counted: forward, backward, what steering adds, the optimizer's matrix products.
    Evaluations, probes and checkpoints are not.

    Attributes:
        per_kind: FLOPs of a step of each kind, over all processes.
        total: FLOPs so far.
        memory: peak bytes of this process's tensors in a step of the kind that takes most (`tensor_memory`).
    """

    def __init__(self, world: int = 1) -> None:
        self.world = world
        self.per_kind: dict[str, int] = {}
        self.total = 0
        self.memory = 0

    def count(self, kind: str, step: Callable[[], T], *owners: Any) -> T:
        """Run a step and add its cost.

        Args:
            kind: of the step.
            step: runs it.
            owners: objects that hold the tensors which live on between steps.
        """
        if kind in self.per_kind:
            result = step()
        else:
            (result, cost), memory = tensor_memory.measured(lambda: flops.counted(step), *owners)
            self.per_kind[kind] = cost * self.world
            self.memory = max(self.memory, memory)
        self.total += self.per_kind[kind]
        return result

    def state_dict(self) -> dict[str, Any]:
        """Costs per kind and their sum so far, and the memory."""
        return {"per_kind": dict(self.per_kind), "total": self.total, "memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.total, self.memory = state["total"], state.get("memory", 0)
        # Checkpoints of before the memory was counted: each kind is measured once more, for the same FLOPs.
        self.per_kind = dict(state["per_kind"]) if "memory" in state else {}


@dataclass(frozen=True, slots=True)
class Pace:
    """What a rehearsal found: the cost of each kind of step, and seconds per step and per evaluation."""

    flops: dict[str, int]
    seconds: float
    evaluation: float


def steps_for(
    budget: Budget,
    tokens_per_step: int,
    pace: Pace | None,
    kind_of: Callable[[int], str],
    *,
    spent: float,
    beside: Callable[[int], float],
) -> int:
    """The whole number of steps a budget buys; at least one.

    Args:
        budget: in any unit.
        tokens_per_step: over all ranks.
        pace: of a rehearsal; needed for `flops` and `minutes`.
        kind_of: kind of each step, whose costs are summed.
        spent: seconds of a `minutes` budget already gone, plus those kept back for what follows the training.
        beside: seconds that a run of that many steps takes beside them, for its evaluations.

    Raises:
        RequestError: the budget does not pay for one step.
    """
    if budget.steps is not None:
        steps = budget.steps
    elif budget.tokens is not None:
        steps = round(budget.tokens / tokens_per_step)
        if steps == 0:
            raise RequestError(
                f"budget.tokens: {budget.tokens} tokens are less than one step of {tokens_per_step}; lower "
                "batch.tokens or raise the budget."
            )
    elif budget.flops is not None:
        assert pace is not None
        steps = _steps_for_flops(budget.flops, pace, kind_of)
        if steps == 0:
            raise RequestError(
                f"budget.flops: {budget.flops:.3g} FLOPs do not pay for one step ({pace.flops[kind_of(0)]:.3g})."
            )
    else:
        assert budget.minutes is not None and pace is not None
        steps = _steps_for_seconds(budget.minutes * 60 - spent, pace, beside)
        if steps == 0:
            raise RequestError(
                f"budget.minutes: {budget.minutes:g} minutes do not pay for one step of {pace.seconds:.2f} s beside "
                f"{spent:.0f} s of preparation and evaluation."
            )
    if steps > LARGEST:
        raise RequestError(
            f"budget: {steps:.3g} steps are more than any run has; look at its unit "
            f"(given: {budget.model_dump(exclude_none=True)})."
        )
    return steps


def _steps_for_flops(total: float, pace: Pace, kind_of: Callable[[int], str]) -> int:
    kinds = set(pace.flops)
    if len(kinds) == 1:
        return math.floor(total / next(iter(pace.flops.values())) + 0.5)
    # A budget beyond any run is refused by the caller; it should not first be counted through step by step.
    if total / min(pace.flops.values()) > LARGEST:
        return math.ceil(total / min(pace.flops.values()))
    spent, steps = 0.0, 0
    while True:
        cost = pace.flops.get(kind_of(steps), max(pace.flops.values()))
        if spent + cost / 2 > total:
            return steps
        spent += cost
        steps += 1


def _steps_for_seconds(seconds: float, pace: Pace, beside: Callable[[int], float]) -> int:
    steps = int(max(0.0, seconds) / pace.seconds)
    # A few rounds settle it: the number of evaluations hardly depends on the number of steps.
    for _ in range(4):
        left = seconds - beside(max(1, steps))
        steps = int(max(0.0, left) / pace.seconds)
    return steps


def pause_step(until: float, total: int) -> int:
    """The step after which a run of `total` steps pauses: a share of them, at least one."""
    return max(1, round(until * total))
