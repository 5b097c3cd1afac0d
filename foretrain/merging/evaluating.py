"""What a merge is worth: the figures of a run, measured on what came out, in a folder that reads like a run's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretrain import environment
from foretrain.context import Context
from foretrain.distributed import Group, alone
from foretrain.errors import RequestError
from foretrain.exporting import model_card, save_model
from foretrain.files import finite, write_atomic, write_json
from foretrain.hashing import hash_data
from foretrain.kernels.accelerate import accelerate
from foretrain.learner import Learner
from foretrain.lock import RunLock
from foretrain.merging.base import Merge, Merged
from foretrain.merging.members import check_members, describe_members
from foretrain.modalities.base import modality_named
from foretrain.objectives.base import Objective
from foretrain.plan import Plan, make_plan
from foretrain.run_directory import RunDirectory


def evaluate_merge(merge: Merge, runs: Sequence[RunDirectory], folder: Path) -> dict[str, Any]:
    """Merge finished runs, measure what came out, and write it down as a run is.

    It is judged by the recipe of the first run: on the same validation windows and tasks, in fp32. `FOLDER` gets
    `recipe.yaml` (of the first run), `plan.json` (the first run's, with `merge` and `members`), `tokenizer/`,
    `config.json`, `merge.json` where it has more to tell, `model/` where it is a model with weights of its own, and,
    last, `result.json`. Its cost is the sum over the members (the largest of them for the peak memory); merging itself
    multiplies no matrices, so it adds no FLOPs; `inference` says how many forward passes one use costs. A folder that
    holds the same merge of the same runs is left as it is; one where it was cut off is done again.

    Args:
        merge: what is made of the runs.
        runs: finished run directories; the first one's recipe decides how the merge is judged.
        folder: where it goes.

    Returns:
        The content of `result.json`.

    Raises:
        RequestError: the runs do not fit together or lack something, or the folder holds something else.
        RunError: the folder cannot be written.
    """
    check_members(runs)
    directory = RunDirectory(folder)
    what: dict[str, Any] = {"merge": merge.model_dump(mode="json"), "members": describe_members(runs)}
    with RunLock(folder):
        known = directory.plan()
        if directory.recipe() and "merge" not in known:
            raise RequestError(f"{folder} holds a run; name another folder for the merge.")
        done = directory.result()
        if done is not None and {key: known.get(key) for key in what} == what:
            return done
        directory.clear()
        plan = plan_of(runs[0])
        merged = merge.merge(runs)
        surroundings = environment.describe()
        hashes = {"environment": hash_data(surroundings), "members": [member["hash"] for member in what["members"]]}
        result = _result(plan, merged, runs, hashes)
        write_json(directory.environment_path, surroundings)
        _write(directory, plan, merged, {**_plan_of_merge(merged, runs), **what}, result)
        result = finite(result)
        write_json(directory.result_path, result)
    return result


def plan_of(run: RunDirectory) -> Plan:
    """The first run's recipe resolved again, for what it is judged on."""
    recipe = run.load_recipe()
    tokenizer = modality_named(recipe.objective.modality).load_tokenizer(run.tokenizer_path)
    plan = make_plan(recipe, alone(), tokenizer=tokenizer, precision="fp32")
    plan.total_steps = run.plan()["total_steps"]
    before, now, split = run.plan()["hashes"]["tokens"], plan.hashes["tokens"], recipe.evaluation.split
    changed = [name for name in before if before[name].get(split) != now.get(name, {}).get(split)]
    if changed:
        raise RequestError(
            f"The {split} split of domain '{changed[0]}' changed since {run.path} was trained, so a merge would be "
            "judged on other text. Put the files back, or train again."
        )
    return plan


def _measured(plan: Plan, merged: Merged) -> dict[str, Any]:
    """`validation` and `tasks` of a result."""
    recipe, group = plan.recipe, alone()
    learner = Learner(accelerate(merged.model), "fp32", group)
    objective = objective_of(plan, learner, group)
    with learner.evaluating():
        figures = plan.validation().measure(learner, objective, group)
        tasks = {name: task.evaluate(merged.subject, recipe.seed) for name, task in recipe.tasks.items()}
    return {
        "validation": {name.removeprefix("validation/"): value for name, value in figures.items()},
        "tasks": {name: {metric: m.plain() for metric, m in measured.items()} for name, measured in tasks.items()},
    }


def objective_of(plan: Plan, learner: Learner, group: Group) -> Objective:
    """The recipe's objective as it is at the end of a run, as far as it is one of the model alone."""
    recipe = plan.recipe
    objective = recipe.objective.model_copy(deep=True)
    objective.setup(
        Context(
            recipe=recipe,
            total_steps=plan.total_steps or 0,
            rehearsal=False,
            learner=learner,
            objective=objective,
            length=plan.context,
            micro=plan.micro_rows,
            stream=plan.stream(),
            timeline=plan.timeline(plan.total_steps or len(recipe.stages)),
            text=plan.tokenizer,
        )
    )
    if not objective.of_the_model_alone():
        raise RequestError(
            f"objective '{objective.kind}' keeps something of its own beside the model (modules, state), which a merge "
            "has not; runs of it cannot be merged."
        )
    objective.before_step(max((plan.total_steps or 0) - 1, 0))
    return objective


def _result(plan: Plan, merged: Merged, runs: Sequence[RunDirectory], hashes: dict[str, Any]) -> dict[str, Any]:
    results = [run.result() or {} for run in runs]
    return {
        "status": "done",
        "name": plan.recipe.name,
        "seed": plan.recipe.seed,
        "loss": None,
        **_measured(plan, merged),
        "cost": {**_cost([result["cost"] for result in results]), "inference": merged.inference},
        "skipped": sum(result["skipped"] for result in results),
        "merge": merged.told.get("figures", {}),
        "hashes": {**plan.hashes, **hashes},
    }


def _cost(costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the members cost: the sum of everything, but for memory, which they did not need at the same time."""
    spent = {}
    for key in costs[0]:
        known = [cost[key] for cost in costs if cost.get(key) is not None]
        spent[key] = (max(known) if key.endswith("memory") else sum(known)) if known else None
    return spent


def _plan_of_merge(merged: Merged, runs: Sequence[RunDirectory]) -> dict[str, Any]:
    """The first run's plan; what has no weights of its own has those of all its members."""
    plans = [run.plan() for run in runs]
    sizes = ("parameters", "parameters_without_embeddings") if merged.exported is None else ()
    return {**plans[0], "precision": "fp32", **{key: sum(plan[key] for plan in plans) for key in sizes}}


def _write(directory: RunDirectory, plan: Plan, merged: Merged, told: dict[str, Any], result: dict[str, Any]) -> None:
    """Everything but the result, which says that the rest is there."""
    if plan.tokenizer is not None:
        plan.tokenizer.save(directory.tokenizer_path)
    plan.config.save_pretrained(directory.path)
    write_json(directory.plan_path, told)
    if merged.told:
        write_json(directory.merge_path, merged.told)
    write_atomic(directory.recipe_path, plan.recipe.to_yaml())
    model = merged.exported
    if model is not None:
        members = "\n".join(f"- {member['name']}, {member['steps']:,} steps" for member in told["members"])
        kind = told["merge"]["kind"]
        card = f"{model_card(plan.recipe, told, result)}\n## Merge\n\nThe {kind} of:\n\n{members}\n"
        save_model(model.cpu(), plan.processor, card, directory.model_path)
