"""Trainer: the loop. `train_step` is the whole step, in order, on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from foretrain import distributed, faults
from foretrain.batch import Batch
from foretrain.budget import Meter, Pace
from foretrain.context import Context
from foretrain.distributed import Group
from foretrain.environment import peak_memory
from foretrain.errors import RequestError, unknown_name
from foretrain.feedback.base import FeedbackSet
from foretrain.guard import Guard
from foretrain.hashing import seed_from
from foretrain.kernels.accelerate import accelerate
from foretrain.learner import Learner
from foretrain.objectives.base import Objective
from foretrain.objectives.outputs import has_plain_head
from foretrain.plan import Plan
from foretrain.spans import due
from foretrain.steering.base import Gradient, Steering, overrides
from foretrain.step import Problem, decide_gradient

Figures = dict[str, Any]


class Trainer:
    """A plan in execution: everything that changes while a run goes on, and the step that changes it.

    Args:
        plan: what is run.
        total: steps of the whole run.
        group: the processes that run it.
        start: the step at which the current schedule began (above 0 for a run that was extended).
    """

    def __init__(self, plan: Plan, total: int, group: Group, start: int = 0) -> None:
        recipe = plan.recipe
        self.plan, self.total, self.group, self.start = plan, total, group, start
        # Parts are copied: the recipe's own stay as they were read, so one recipe can serve several trainers.
        self.objective = recipe.objective.model_copy(deep=True)
        self.parametrization = recipe.parametrization.model_copy(deep=True)
        self.steering = [part.model_copy(deep=True) for part in recipe.steering]
        self.probes = [part.model_copy(deep=True) for part in recipe.probes]
        self.schedule = recipe.schedule
        self.step = 0
        self.figures: Figures = {}
        self.warnings: list[str] = []
        if group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the process may have trained others before
        self.stream = plan.stream()
        model = accelerate(plan.build_model())
        has_plain_head(model)  # looked at here, before the model is sharded and its cost is counted
        model = self.parametrization.apply(model, recipe.seed).train()
        self.learner = Learner(model, plan.precision, group, recipe.distributed)
        self.context = Context(
            recipe=recipe,
            total_steps=total,
            rehearsal=total != plan.total_steps,
            learner=self.learner,
            objective=self.objective,
            length=plan.context,
            micro=plan.micro_rows,
            stream=self.stream,
            text=plan.tokenizer,
            record=self._record,
            warn=self._warn,
            second_moments=lambda: second_moments(self.optimizer),
            feedback=cache(self._feedback),
        )
        self.objective.setup(self.context)
        self.deciders: tuple[Objective | Steering, ...] = (self.objective, *self.steering)
        for number, module in enumerate(self.objective.modules()):
            self.learner.adopt(module, f"objective.{number}")
        for steering in self.steering:
            steering.setup(self.context)
        for probe in self.probes:
            probe.setup(self.context)
        if recipe.compile:
            _compile(self.learner.model)
        self.optimizer = recipe.optimizer.build(self.learner.masters, self.learner.roles)
        self.guard = Guard(recipe.stability.spike, recipe.stability.patience)
        self.meter = Meter(group.world)
        self.mixers = [part for part in self.steering if overrides(part, "mix")]
        self.validation = plan.validation()

    # The step ------------------------------------------------------------------------------------------------------

    def train_step(self) -> Figures:
        """One step: decide at today's weights, differentiate, apply. Returns its line of `metrics.jsonl`."""
        step, recipe = self.step, self.plan.recipe
        self.figures = {}
        self.learner.zero_gradients()  # first of all: scoring a batch needs the memory that the old ones take
        torch.manual_seed(seed_from(recipe.seed, "step", step, self.group.rank))  # dropout: pure in (seed, step)

        batch = self.stream.batch(self.group.rank, self.group.world)
        for part in self.steering:
            batch = part.replace(batch)
        batch = self.objective.prepare(batch).to(self.group.device)
        for part in self.steering:
            part.before_step(batch)
        for part in self.steering:
            batch = part.view(batch)
        problem = self._problem(batch)
        gradient = decide_gradient(problem, self.steering)
        loss_sum, tokens = self.group.sum(problem.loss, problem.tokens)
        loss, norm = loss_sum / max(tokens, 1.0), clip_gradient(gradient, recipe.stability.clip)

        rate = self.set_rate(step)
        verdict = self.guard.judge(step, loss, norm)
        if verdict == "good":
            self.learner.install(gradient)
            self.optimizer.step()
            self.learner.refresh()
            for moved in (self.parametrization, *self.deciders):
                moved.after_step(step)
        self._mix(step)
        self.stream.advance()
        self.step = step + 1

        self.figures |= {"loss": loss, "lr": rate, "gradient_norm": norm}
        if verdict != "good":
            self.figures["skipped"] = verdict
        return self.figures

    # What the step is made of --------------------------------------------------------------------------------------

    def kind(self, step: int) -> str:
        """The kind of a step: steps of one kind cost the same."""
        names = (part.step_kind(step) for part in self.deciders)
        return ",".join(name for name in names if name)

    def set_rate(self, step: int) -> float:
        """Set the learning rate of a step; returns that of the first parameter group."""
        factor = self.schedule.factor(step - self.start, self.total - self.start)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        return float(self.plan.recipe.optimizer.lr * factor)

    def _problem(self, batch: Batch) -> Problem:
        return Problem(batch, self.objective, self.learner, self.steering, self.plan.micro_rows, faults.reach)

    def _mix(self, step: int) -> None:
        if self.mixers:
            weights: Any = self.plan.weights
            for part in self.mixers:
                weights = part.mix(weights, step)
            self.stream.set_weights(dict(weights))
            self.figures |= {f"domain/{name}/weight": weight for name, weight in self.stream.weights.items()}

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _feedback(self, name: str) -> FeedbackSet:
        known = self.plan.recipe.feedback
        if name not in known:
            given = unknown_name("set", name, known) if known else f"the recipe has none, so there is no '{name}'"
            raise RequestError(f"feedback: {given}.")
        return known[name].open(name, self.context)

    def _record(self, name: str, value: float) -> None:
        self.figures[name] = value

    # Between steps -------------------------------------------------------------------------------------------------

    def counted_step(self) -> tuple[Figures, float]:
        """One step with its cost counted: its line of `metrics.jsonl`, and its seconds."""
        begin = time.perf_counter()
        owners = self.learner, self.optimizer, *self._stateful().values()
        figures = self.meter.count(self.kind(self.step), self.train_step, *owners)
        if self.group.device.type == "cuda":
            torch.cuda.synchronize()
        return self.line(figures), time.perf_counter() - begin

    def line(self, figures: Figures) -> Figures:
        """Figures as a line of `metrics.jsonl`."""
        return {
            "step": self.step,
            "tokens": self.step * self.plan.tokens_per_step,
            "flops": self.meter.total,
            **figures,
        }

    def measure(self, validate: bool = False) -> Figures:
        """Validation (also where it is not due, if `validate`) and probes that are due after the steps so far."""
        recipe = self.plan.recipe
        figures: Figures = {}
        if validate or self.step == 0 or due(recipe.evaluation.every, self.step, self.total):
            figures |= self.validation.measure(self.learner, self.objective, self.group)
        for probe in self.probes:
            if self.step == 0 or due(probe.every, self.step, self.total):
                found = probe.measure(self.context)
                figures |= {f"probe/{probe.kind}/{name}": value for name, value in found.items()}
        return figures

    def memory(self) -> int:
        """Peak memory of this process (of the GPU, where there is one), in bytes."""
        if self.group.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return peak_memory()

    def tensor_memory(self) -> int:
        """Peak memory of this run's tensors on one device, in bytes, whatever else the process did.

        On a CPU that of the steps, counted (`foretrain.tensor_memory`); on a GPU what its allocator saw of the run.
        """
        if self.group.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return self.meter.memory

    # State ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as a tree; whole tensors (a collective call under sharding)."""
        state = {
            "step": self.step,
            "model": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._stateful().items()},
        }
        return distributed.whole(state) if self.learner.sharded else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.step = state["step"]
        self.load_weights(state)
        for name, part in self._stateful().items():
            part.load_state_dict(state["parts"][name])

    def _stateful(self) -> dict[str, Any]:
        """Everything with a state of its own beside the weights, by name."""
        listed = {
            f"{part.axis}.{number}": part for parts in (self.steering, self.probes) for number, part in enumerate(parts)
        }
        return {
            "stream": self.stream,
            "guard": self.guard,
            "meter": self.meter,
            "objective": self.objective,
            "parametrization": self.parametrization,
            **listed,
        }

    def load_weights(self, state: dict[str, Any]) -> bool:
        """Restore the model, and the optimizer's state where it is of the same kind; returns whether it was.

        Settings of the optimizer are always this recipe's own, so a branch may change them.
        """
        self.learner.load_state_dict(state["model"])
        return load_optimizer(self.optimizer, state["optimizer"])

    def load_seen(self, state: dict[str, Any], same: set[str]) -> None:
        """Go on in the domains whose text is the `same` as before: what was seen there comes last again."""
        self.stream.continue_from(state["parts"]["stream"], same)

    def _first_of_each_kind(self) -> list[int]:
        first: dict[str, int] = {}
        for step in range(min(self.total, 1000)):
            first.setdefault(self.kind(step), step)
        return list(first.values())

    @contextmanager
    def _rehearsing(self) -> Iterator[None]:
        state = _copied(self.state_dict())
        try:
            yield
        finally:
            self.load_state_dict(state)

    def rehearse(self, warm: int, timed: int, seconds: float = 0.0) -> Pace:
        """Run a few steps for their cost and duration, and one evaluation, then put everything back.

        One step of each kind is counted, as far as the next thousand steps have them.

        Args:
            warm: steps before the clock starts.
            timed: steps on the clock; with 0, nothing is timed.
            seconds: where those take less, steps go on for this long.
        """
        with self._rehearsing():
            begin_of_stream = self.stream.state_dict()
            for first in self._first_of_each_kind():
                # The stream too: a part may go by the step that its batch is of.
                self.stream.advance(first - self.stream.step)
                self.step = first
                self.counted_step()
            self.stream.load_state_dict(begin_of_stream)
            self.step = 0
            for _ in range(warm):
                self.counted_step()
            begin = time.perf_counter()
            steps, gone = 0, 0.0
            while steps < timed or gone < seconds:
                self.counted_step()
                steps, gone = steps + 1, self.group.agree(time.perf_counter() - begin)
            begin = time.perf_counter()
            if timed:
                self.validation.measure(self.learner, self.objective, self.group)
            evaluation = self.group.agree(time.perf_counter() - begin)
            return Pace(dict(self.meter.per_kind), gone / max(steps, 1), evaluation)


def clip_gradient(gradient: Gradient, largest: float | None) -> float:
    """Scale a gradient in place to a global norm of at most `largest`; returns the norm it had."""
    tensors = list(gradient.values())
    total: Any = nn.utils.get_total_norm(tensors)
    norm = float(total.full_tensor() if hasattr(total, "full_tensor") else total)
    if largest is not None and norm > largest:
        torch._foreach_mul_(tensors, largest / norm)
    return norm


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> bool:
    """Restore an optimizer's state from whole tensors, each cut like the parameter it belongs to.

    Returns False, and leaves the optimizer new, where the state is of another kind of optimizer or other parameters.
    """
    own = optimizer.state_dict()
    if _parameter_names(own) != _parameter_names(state):
        return False
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        parameter = parameters[int(number)]
        cut[int(number)] = {
            name: distributed.like(value, parameter)
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for name, value in values.items()
        }
    optimizer.load_state_dict({"state": cut, "param_groups": own["param_groups"]})
    return True


def second_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's running means of squared gradients, without their bias, by parameter name; empty where there are none."""
    found: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            state = optimizer.state.get(parameter, {})
            if "exp_avg_sq" in state:
                found[name] = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return found


def _parameter_names(state: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(group["name"], group["param_names"]) for group in state["param_groups"]]


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def _compile(model: Any) -> None:
    # In this process: the pool of compiling processes was seen to wait for ever on a busy machine.
    from torch._inductor import config

    config.compile_threads = 1
    model.base_model.compile()
