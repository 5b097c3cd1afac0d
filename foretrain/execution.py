"""Run: a trainer in its directory: resumed where it stood, journalled, checkpointed, and closed with its results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from foretrain import environment
from foretrain.budget import Pace, pause_step, steps_for
from foretrain.checkpoints import Checkpointer
from foretrain.clock import Clock
from foretrain.closing import Keep, close, evaluate_task
from foretrain.console import Terminal
from foretrain.distributed import Group
from foretrain.errors import Interrupted, RequestError, RunError
from foretrain.files import write_atomic, write_json
from foretrain.flops import peak_flops
from foretrain.journal import Journal
from foretrain.plan import Plan
from foretrain.recipe import Budget
from foretrain.reports.run_report import write_report
from foretrain.run_directory import RunDirectory
from foretrain.signals import Interruption
from foretrain.sizing import FAR, sized
from foretrain.spans import due, interval
from foretrain.tasks.base import Measured
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.trackers.base import Trackers
from foretrain.trainer import Trainer

CLOSING_SECONDS = 4.0
"""Seconds of a `minutes` budget kept for the export, the samples and the report."""
REHEARSAL_STEPS = 3, 8
"""Steps before the clock, and timed steps at least, when a budget in minutes is calibrated."""
REHEARSAL_SHARE = 0.02
"""Share of a `minutes` budget that the timed steps take."""
MOST_EPOCHS = 16
"""Passes over a domain's text from which on the user is told."""


class Run:
    """One run in its directory.

    Args:
        plan: what is run.
        folder: its directory.
        group: the processes that run it.
        terminal: where progress is shown.
        started: `time.time()` at which the command began (a budget in minutes counts from there).
        tree: state to begin with (of the run this one branches from), or None.
        same_domains: domains whose text is that of the run it branches from; they go on where that run stood.
        start: the step at which the current schedule began.
        until: the share of the steps after which it pauses; None: it goes on to its end.
        pauses: steps at which earlier commands paused it, or were to.
        keep: what is left at the end.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        group: Group,
        terminal: Terminal,
        *,
        started: float,
        tree: dict[str, Any] | None = None,
        same_domains: set[str] | None = None,
        start: int = 0,
        until: float | None = None,
        pauses: Iterable[int] = (),
        keep: Keep = "all",
    ) -> None:
        self.plan, self.folder, self.group, self.terminal, self.started = plan, folder, group, terminal, started
        self.directory = RunDirectory(folder)
        self.tree, self.same_domains, self.start = tree, same_domains or set(), start
        self.until, self.pauses, self.keep = until, set(pauses), keep
        self.pause: int | None = None
        self.environment = environment.describe()
        self.seconds = 0.0
        self.metrics: Journal | None = None
        self.timing: Journal | None = None
        self.clock: Clock | None = None
        self.checkpointer = Checkpointer(
            folder / "checkpoints",
            keep=plan.recipe.checkpoint.keep,
            best=plan.recipe.checkpoint.best,
            warn=terminal.warn,
            owner=group.main,
        )

    # Before the first step -----------------------------------------------------------------------------------------

    def prepare(self) -> Trainer:
        """The trainer, at the first step or where the newest good checkpoint left it; the plan is frozen on disk."""
        plan = self.plan
        if plan.total_steps is None:
            plan.total_steps = self._rehearsed_steps()
        if plan.total_steps <= self.start > 0:
            raise RequestError(
                f"{self.folder} has done {self.start} steps; a budget that extends it should be larger "
                f"({plan.total_steps} steps asked for)."
            )
        if self.until is not None:
            self.pause = pause_step(self.until, plan.total_steps)
            self.pauses.add(self.pause)
        for name, times in plan.epochs().items():
            if times > MOST_EPOCHS:
                self.terminal.warn(
                    f"domain '{name}' is read {times:.0f} times over; beyond about {MOST_EPOCHS} a repeated text "
                    "teaches little that is new (arXiv 2305.16264)"
                )
        trainer = Trainer(plan, plan.total_steps, self.group, self.start)
        if self.tree is not None:
            trainer.learner.refuse_other(self.tree["model"])
        if self.group.main:
            self._freeze()
        found = self._newest()
        if found is not None:
            trainer.load_state_dict(found[1])
            self.seconds = found[1]["seconds"]
            self.terminal.say(f"resuming at step {trainer.step} of {trainer.total}")
        elif self.tree is not None:
            if not trainer.load_weights(self.tree):
                self.terminal.say("the optimizer is of another kind than the one before, so its state starts anew")
            trainer.load_seen(self.tree, self.same_domains)
        if self.group.main:
            self.metrics, self.timing = Journal(self.directory.metrics_path), Journal(self.directory.timing_path)
            offsets = found[1]["journals"] if found is not None else {"metrics": 0, "timing": 0}
            self.metrics.truncate(offsets["metrics"])
            self.timing.truncate(offsets["timing"])
        return trainer

    def _write_plan(self) -> None:
        if self.group.main:
            held = {"start": self.start, "pauses": sorted(self.pauses)}
            write_json(self.directory.plan_path, {**self.plan.plain(), **held})

    def _freeze(self) -> None:
        """Write what the run is. Wherever this is cut off, the same command goes on as if nothing had been written."""
        plan = self.plan
        write_json(self.directory.environment_path, self.environment)
        if plan.tokenizer is not None and not self._kept(plan.tokenizer):
            plan.tokenizer.save(self.directory.tokenizer_path)
        plan.config.save_pretrained(self.folder)
        self._write_plan()
        write_atomic(self.directory.recipe_path, plan.recipe.to_yaml())
        for told in (self.directory.report_path, self.directory.result_path, self.directory.pictures_path):
            told.unlink(missing_ok=True)

    def _kept(self, tokenizer: TextTokenizer) -> bool:
        try:
            return TextTokenizer.load(self.directory.tokenizer_path).hash == tokenizer.hash
        except RequestError:
            return False

    def _newest(self) -> tuple[int, Any] | None:
        # The main process decides which one is good (and sets bad ones aside) before the others read it.
        found = self.checkpointer.load_newest() if self.group.main else None
        step = self.group.agree(found[0] if found is not None else None)
        return (step, self.checkpointer.load(step)) if found is None and step is not None else found

    def _rehearsed_steps(self) -> int:
        budget = self.plan.recipe.budget
        if budget.minutes is None:
            steps, pace, _ = sized(self.plan, budget, self.group)
        else:
            steps, pace = self._steps_for_minutes(budget, budget.minutes)
        self._say_pace(pace, steps)
        return int(self.group.agree(steps))

    def _steps_for_minutes(self, budget: Budget, minutes: float) -> tuple[int, Pace]:
        trainer = Trainer(self.plan, FAR, self.group)
        pace, tasks = self._timed(trainer, 60 * REHEARSAL_SHARE * minutes)
        # The last evaluation is that of the exported weights, in fp32: about twice as slow.
        closing = CLOSING_SECONDS + 2 * pace.evaluation + sum(tasks.values())
        steps = steps_for(
            budget,
            self.plan.tokens_per_step,
            pace,
            trainer.kind,
            spent=time.time() - self.started + closing,
            beside=lambda steps: self._seconds_beside(steps, pace, tasks),
        )
        self.clock = Clock(self.started + 60 * minutes, minutes, closing)
        return steps + self.start, pace  # minutes count from this command on, the other units from the first step

    def _timed(self, trainer: Trainer, least: float) -> tuple[Pace, dict[str, float]]:
        """The pace, of at least that many seconds of steps; and the seconds of each task."""
        pace, seconds = trainer.rehearse(*REHEARSAL_STEPS, seconds=least), {}
        for name in self.plan.recipe.tasks:
            begin = time.perf_counter()
            evaluate_task(trainer, name)
            seconds[name] = time.perf_counter() - begin
        return pace, seconds

    def _seconds_beside(self, steps: int, pace: Pace, tasks: Mapping[str, float]) -> float:
        """Seconds of evaluations and tasks in a run of that many steps, the closing ones left out."""
        recipe = self.plan.recipe
        seconds = pace.evaluation * (1 + -(-steps // interval(recipe.evaluation.every, steps)))
        for name, task in recipe.tasks.items():
            if task.every is not None:
                seconds += tasks[name] * ((steps - 1) // interval(task.every, steps))
        return seconds

    def _say_pace(self, pace: Pace, steps: int) -> None:
        speed = f", {pace.seconds:.3f} s a step" if pace.seconds else ""
        self.terminal.say(
            f"the budget comes to {steps} steps ({sum(pace.flops.values()) / len(pace.flops):.3g} FLOPs a step{speed})"
        )

    # The loop ------------------------------------------------------------------------------------------------------

    def train(self, trainer: Trainer) -> None:
        """Train to the end or the pause, or until a signal: then write a checkpoint and say how to go on.

        Where a run pauses it is evaluated, and so is one that is sent through that step again: its figures do not
        depend on where it was killed in between.

        Raises:
            Interrupted: SIGTERM or SIGINT came; the same command resumes.
        """
        recipe, peak = self.plan.recipe, peak_flops(self.group.device, self.plan.precision)
        trackers = Trackers(recipe.track if self.group.main else [], self.terminal.warn)
        trackers.start(self.folder, recipe.name, recipe.plain())

        def write(line: Mapping[str, Any], timing: Mapping[str, Any] | None = None) -> None:
            if self.metrics is None or self.timing is None:
                return
            self.metrics.write(line)
            if timing is not None:
                self.timing.write(timing)
            trackers.log(line["step"], {**line, **(timing or {})})

        try:
            with (
                Interruption() as interruption,
                self.terminal.training(trainer.total, self.plan.tokens_per_step, trainer.step) as progress,
            ):
                if trainer.step == 0 and (figures := self._measured(trainer)):
                    write(trainer.line(figures))
                    progress.evaluated(0, figures)
                if self.clock is not None:
                    self.clock.begin(trainer.step)
                while trainer.step < trainer.total and not self._pausing(trainer):
                    line, seconds = trainer.counted_step()
                    self._pass_on(trainer)
                    self.seconds += seconds
                    speed = self.plan.tokens_per_step / seconds
                    cost = trainer.meter.per_kind[trainer.kind(trainer.step - 1)]
                    timing = {
                        "step": trainer.step,
                        "seconds": self.seconds,
                        "tokens_per_second": speed,
                        "mfu": cost / seconds / (peak * self.group.world),
                        "memory": trainer.memory(),
                        "tensor_memory": trainer.tensor_memory(),
                    }
                    write(line, timing)
                    progress.step(trainer.step, loss=line["loss"], tokens_per_second=speed, mfu=timing["mfu"])
                    self.checkpointer.poll()
                    figures = self._measured(trainer)
                    if figures:
                        write(trainer.line(figures))
                        progress.evaluated(trainer.step, figures)
                    stop = self.group.any(interruption.requested)
                    moved = self._keep_time(trainer)
                    due_now = due(recipe.checkpoint.every, trainer.step, trainer.total)
                    if stop or moved or due_now or self._pausing(trainer):
                        self._save(trainer, figures.get("validation/loss"))
                    if moved:
                        # With a checkpoint first, whoever resumes by the new plan begins where it begins.
                        self.checkpointer.wait()
                        self._write_plan()
                        progress.move_end(trainer.total)
                    if stop and trainer.step < trainer.total:
                        self.checkpointer.wait()
                        raise Interrupted(
                            f"Interrupted at step {trainer.step} of {trainer.total}; a checkpoint is written and the "
                            "same command resumes."
                        )
            self.checkpointer.wait()
        finally:
            trackers.finish()
            for journal in (self.metrics, self.timing):
                if journal is not None:
                    journal.close()
            self.checkpointer.close()

    def _pass_on(self, trainer: Trainer) -> None:
        """Say what parts of the run warn of, and note it in the plan, once."""
        for text in trainer.warnings:
            if text not in self.plan.notes:
                self.plan.notes.append(text)
                self.terminal.warn(text)
                self._write_plan()

    def _pausing(self, trainer: Trainer) -> bool:
        return self.pause is not None and self.pause <= trainer.step < trainer.total

    def _keep_time(self, trainer: Trainer) -> bool:
        """Move the last step where a run in minutes would end too early or too late; returns whether it moved."""
        before = trainer.total
        if self.clock is None or not self.clock.due(trainer.step, before):
            return False
        self.plan.total_steps = trainer.total = int(self.group.agree(self.clock.total(trainer.step, before)))
        if trainer.total == before:
            return False
        note = f"at step {trainer.step} the last step moved from {before} to {trainer.total}, to end on time"
        self.plan.notes.append(note)
        self.terminal.say(note)
        return True

    def _measured(self, trainer: Trainer) -> dict[str, Any]:
        figures = trainer.measure(validate=trainer.step in self.pauses)
        ended = trainer.timeline.ended(trainer.step) is not None
        for name, task in self.plan.recipe.tasks.items():
            known = task.every is not None and due(task.every, trainer.step, trainer.total)
            if trainer.step < trainer.total and (known or ended):
                for metric, measured in evaluate_task(trainer, name).items():
                    figures |= _task_figures(name, metric, measured)
        return figures

    def _save(self, trainer: Trainer, validation: float | None) -> None:
        tree = {**trainer.state_dict(), "seconds": self.seconds, "journals": {}}
        if self.metrics is not None and self.timing is not None:
            tree["journals"] = {"metrics": self.metrics.offset(), "timing": self.timing.offset()}
            scheduled = due(self.plan.recipe.checkpoint.every, trainer.step, trainer.total)
            self.checkpointer.save(trainer.step, tree, metric=validation, passing=not scheduled)

    # After the last step -------------------------------------------------------------------------------------------

    def close(self, trainer: Trainer) -> dict[str, Any]:
        """Tasks and `result.json`; and, as far as they are kept, samples, the exported model and the report."""
        result = close(trainer, self.directory, self.keep, self.seconds, self.environment)
        self._pass_on(trainer)
        return result

    def fail(self, text: str) -> None:
        """Leave word of what went wrong, where the disk allows it."""
        if self.group.main and self.directory.recipe_path.is_file():
            with suppress(RunError):
                write_json(self.directory.result_path, {"status": "failed", "error": text})
                if self.keep == "all":
                    write_report(self.directory)


def _task_figures(name: str, metric: str, measured: Measured) -> dict[str, float]:
    base = f"task/{name}/{metric}"
    ends = {
        f"{base}/{end}": value for end, value in (("low", measured.low), ("high", measured.high)) if value is not None
    }
    return {base: measured.value, **ends}


def execute(run: Run) -> dict[str, Any] | None:
    """Prepare, train, close; the result, or None for a run that paused before its end.

    A run that fails leaves what went wrong in its `result.json`; resuming removes it.
    """
    try:
        trainer = run.prepare()
        run.train(trainer)
        return run.close(trainer) if trainer.step == trainer.total else None
    except RunError as error:
        run.fail(str(error))
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        text = "Out of memory. A smaller batch.micro needs less and changes no result; then a smaller model or context."
        run.fail(text)
        raise RunError(text) from error
