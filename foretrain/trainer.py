"""Trainer: the loop. `train_step` is the whole step, in order, on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from foretrain import distributed, faults
from foretrain.batch import Batch
from foretrain.budget import Meter, Pace
from foretrain.context import Context
from foretrain.distributed import Group
from foretrain.environment import peak_memory
from foretrain.errors import RequestError, unknown_name
from foretrain.feedback.base import FeedbackSet
from foretrain.fitting import refuse_missing_split
from foretrain.gradients import clip_gradient
from foretrain.guard import Guard
from foretrain.hashing import seed_from
from foretrain.kernels.accelerate import accelerate
from foretrain.learner import Learner
from foretrain.moving import Moving, copied, load_optimizer, second_moments
from foretrain.named_models import Reference, open_named
from foretrain.objectives.base import Objective
from foretrain.objectives.outputs import has_plain_head
from foretrain.plan import Plan
from foretrain.run_directory import by_domain
from foretrain.spans import due
from foretrain.stages import SideBranches, Timeline, Transfer
from foretrain.steering.base import Steering, overrides
from foretrain.step import Problem, decide_gradient

Figures = dict[str, Any]

LOOKED_AT = 1_000_000
"""Steps among which a rehearsal looks for kinds that differ in cost."""


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
        self.step = 0
        self.figures: Figures = {}
        self.warnings: list[str] = []
        if group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the process may have trained others before
        self.stream = plan.stream()
        self._timeline = plan.timeline(total, start)
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
            timeline=self.timeline,
            text=plan.tokenizer,
            record=self._record,
            warn=self._warn,
            second_moments=lambda: second_moments(self.optimizer),
            feedback=cache(self._feedback),
            named=cache(self._named),
            evaluate=self._evaluate,
            sets=plan.sets,
            undone=lambda: self.moving.undone(),
            apply=self._apply,
        )
        self.parametrization.setup(self.context)
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
        self.moving = Moving(
            self.learner, self.optimizer, {"objective": self.objective, "parametrization": self.parametrization}
        )
        self.branches, self.transfer = SideBranches(self.moving), Transfer(self.timeline)
        self.guard = Guard(recipe.stability.spike, recipe.stability.patience)
        self.meter = Meter(group.world)
        self.mixers = [part for part in self.steering if overrides(part, "mix")]
        self.validation = plan.validation()
        for first in range(self.stream.lag):  # what is known before the first step acts from it on
            self._mix(step=0, at=first)

    @property
    def timeline(self) -> Timeline:
        """The stages of the run, as steps."""
        if self._timeline.total != self.total:
            self._timeline = self.plan.timeline(self.total, self.start)
        return self._timeline

    # The step ------------------------------------------------------------------------------------------------------

    def train_step(self) -> Figures:
        """One step: decide at today's weights, differentiate, apply. Returns its line of `metrics.jsonl`."""
        step, recipe = self.step, self.plan.recipe
        self.figures = {}
        self.branches.enter(step, self.timeline)
        if step == self.timeline.at(step).first or self.objective.begins(step):
            self.guard.begin()
        self.parametrization.before_step(step, self.optimizer)
        self.learner.zero_gradients()  # first of all: scoring a batch needs the memory that the old ones take
        torch.manual_seed(seed_from(recipe.seed, "step", step, self.group.rank))  # dropout: pure in (seed, step)

        self.objective.before_step(step)
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
        counts = self.objective.counts(batch)
        loss_sum, tokens, *sums = self.group.sum(problem.loss, problem.tokens, *counts.values())
        loss, norm = loss_sum / max(tokens, 1.0), clip_gradient(gradient, recipe.stability.clip)

        rate = self.set_rate(step)
        verdict = self.guard.judge(step, loss, norm)
        if verdict == "good":
            self._move(gradient)
            for decider in self.deciders:
                decider.after_step(step)
        self._mix(step, at=step + self.stream.lag)
        self.stream.advance()
        self.step = step + 1

        self.figures |= {"loss": loss, "lr": rate, "gradient_norm": norm, **dict(zip(counts, sums, strict=True))}
        if verdict != "good":
            self.figures["skipped"] = verdict
        return self.figures

    # What the step is made of --------------------------------------------------------------------------------------

    def kind(self, step: int) -> str:
        """The kind of a step: steps of one kind cost the same."""
        names = (part.step_kind(step) for part in (self.parametrization, *self.deciders))
        return ",".join(name for name in names if name)

    def set_rate(self, step: int) -> float:
        """Set the learning rate of a step; returns that of the first parameter group."""
        factor = self.timeline.factor(step) * self.parametrization.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        return float(self.plan.recipe.optimizer.lr * factor)

    def _problem(self, batch: Batch) -> Problem:
        return Problem(batch, self.objective, self.learner, self.steering, self.plan.micro_rows, faults.reach)

    def _mix(self, step: int, at: int) -> None:
        if self.mixers or self.timeline.staged:
            weights: Any = self.timeline.at(at).weights
            for part in self.mixers:
                weights = part.mix(weights, step)
            self.stream.set_weights(dict(weights), at)
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

    def _named(self, name: str) -> Reference:
        return open_named(self.plan.recipe.models, name, self.context)

    def _evaluate(self, split: str = "steer", tokens: int | None = None) -> dict[str, float]:
        refuse_missing_split(self.plan, split, "a part of this recipe")
        validation = self.plan.validation(split, tokens)
        return by_domain(validation.measure(self.learner, self.objective, self.group))

    def _apply(self, gradient: Mapping[str, Tensor], rate: float | None = None) -> None:
        self.set_rate(self.step)
        if rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate
        self._move(gradient)
        self.learner.zero_gradients()

    def _move(self, gradient: Mapping[str, Tensor]) -> None:
        self.learner.install(gradient)
        self.optimizer.step()
        self.parametrization.project()
        self.learner.refresh()

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
            **self.ideal(),
            **figures,
        }

    def ideal(self) -> dict[str, int]:
        """FLOPs so far without products that the parametrization makes with zeros, where it makes some."""
        unspent = self.parametrization.unspent()
        return {"ideal_flops": self.meter.total - unspent} if unspent else {}

    def measure(self, validate: bool = False) -> Figures:
        """Validation (also where it is not due, if `validate`) and probes that are due after the steps so far."""
        recipe = self.plan.recipe
        figures: Figures = {}
        ended = self.timeline.ended(self.step) is not None
        if validate or ended or self.step == 0 or due(recipe.evaluation.every, self.step, self.total):
            figures |= self.validation.measure(self.learner, self.objective, self.group)
        if self.step == 0:
            self.transfer.start(by_domain(figures))
        elif ended:
            figures |= self.transfer.after_stage(by_domain(figures))
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
            **({"branches": self.branches, "transfer": self.transfer} if self.timeline.staged else {}),
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
        for step in range(min(self.total, LOOKED_AT)):
            first.setdefault(self.kind(step), step)
        return list(first.values())

    @contextmanager
    def _rehearsing(self) -> Iterator[None]:
        state = copied(self.state_dict())
        try:
            yield
        finally:
            self.load_state_dict(state)

    def rehearse(self, warm: int, timed: int, seconds: float = 0.0) -> Pace:
        """Run a few steps for their cost and duration, and one evaluation, then put everything back.

        One step of each kind is counted, as far as the first million steps have them.

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


def _compile(model: Any) -> None:
    # In this process: the pool of compiling processes was seen to wait for ever on a busy machine.
    from torch._inductor import config

    config.compile_threads = 1
    model.base_model.compile()
