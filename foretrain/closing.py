"""Closing: what a run leaves behind after its last step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from foretrain import distributed
from foretrain.drawing import draw, write_pictures
from foretrain.exporting import model_card, save_trained, trained_from_state
from foretrain.files import finite, write_json
from foretrain.hashing import hash_data
from foretrain.reports.run_report import write_report
from foretrain.run_directory import RunDirectory
from foretrain.tasks.base import Measured
from foretrain.trainer import Trainer

Keep = Literal["all", "figures"]
"""What a run leaves at its end: with `figures`, no exported model, no samples and no report."""


def close(
    trainer: Trainer, directory: RunDirectory, keep: Keep, seconds: float, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """Tasks, pictures and `result.json`; and, as far as they are kept, samples, the exported model and the report.

    Args:
        trainer: after its last step.
        directory: where it all goes.
        keep: how much of it.
        seconds: what the training took.
        environment: what it ran on (`environment.describe`).
    """
    plan, group = trainer.plan, trainer.group
    # Figures that outlive the run are those of the exported weights: fp32, whatever it trained in.
    with trainer.learner.exact(), trainer.learner.evaluating():
        validation = trainer.validation.measure(trainer.learner, trainer.objective, group)
        tasks = {name: evaluate_task(trainer, name) for name in plan.recipe.tasks}
        result = _result(trainer, directory, validation, tasks, seconds, environment)
        samples = _samples(trainer) if keep == "all" else []
    if keep == "all":
        state = trainer.learner.state_dict()
        state = distributed.whole(state) if trainer.learner.sharded else state
        if group.main:
            write_json(directory.samples_path, samples)
            part, trained = trained_from_state(plan.recipe, plan.config, state)
            card = model_card(plan.recipe, plan.plain(), result)
            save_trained(part, trained, plan.processor, card, directory.model_path)
    # After the model is safe: whatever a part does to draw, it changes nothing that is kept.
    with trainer.learner.exact(), trainer.learner.evaluating():
        drawn = draw(trainer)
    if group.main:
        write_pictures(directory, drawn)
        write_json(directory.result_path, finite(result))
        if keep == "all":
            write_report(directory)
    return result


def evaluate_task(trainer: Trainer, name: str) -> dict[str, Measured]:
    """One task of the recipe on the model as it stands."""
    recipe = trainer.plan.recipe
    with trainer.learner.evaluating():
        return recipe.tasks[name].evaluate(_subject(trainer), recipe.seed)


def _subject(trainer: Trainer) -> Any:
    """The model as tasks and samples see it."""
    return trainer.plan.modality.subject(trainer.learner.model, trainer.plan.tokenizer, trainer.plan.context)


def _samples(trainer: Trainer) -> list[dict[str, str]]:
    return trainer.plan.modality.samples(_subject(trainer), trainer.plan.recipe.seed)


def _result(
    trainer: Trainer,
    directory: RunDirectory,
    validation: Mapping[str, float],
    tasks: Mapping[str, Mapping[str, Measured]],
    seconds: float,
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    plan = trainer.plan
    return {
        "status": "done",
        "name": plan.recipe.name,
        "seed": plan.recipe.seed,
        "loss": directory.series("loss").last,
        "validation": {name.removeprefix("validation/"): value for name, value in validation.items()},
        "tasks": {
            name: {metric: measured.plain() for metric, measured in metrics.items()} for name, metrics in tasks.items()
        },
        "cost": {
            "steps": trainer.step,
            "tokens": trainer.step * plan.tokens_per_step,
            "flops": trainer.meter.total,
            **trainer.ideal(),
            "seconds": seconds,
            "peak_memory": trainer.memory(),
            "tensor_memory": trainer.tensor_memory(),
        },
        "skipped": trainer.guard.skipped,
        "hashes": {**plan.hashes, "environment": hash_data(environment)},
    }
