"""The jobs of a study: make a product, plan a run, run it, merge what ran. Plain data goes in and comes out.

They are called by an executor in this process or another, on this machine or another that sees the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretrain import __version__
from foretrain.budget import Pace
from foretrain.distributed import Group
from foretrain.exporting import export_run
from foretrain.hashing import hash_data
from foretrain.merging.base import Merge
from foretrain.merging.evaluating import evaluate_merge
from foretrain.modalities.base import modality_named
from foretrain.parts import find, load_plugin
from foretrain.plan import Plan, make_plan
from foretrain.recipe import Budget, Recipe, make_recipe
from foretrain.run_directory import RunDirectory, split_step
from foretrain.running import run
from foretrain.sizing import FAR, sized
from foretrain.stages import FIGURES as STAGE_FIGURES
from foretrain.tasks.base import Task
from foretrain.tokens.cache import cache_folder
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.trainer import Trainer

INPUTS = ("tokens", "corpus", "tokenizer", "feedback", "models", "scores")
"""Hashes of a plan that decide, with its recipe, what a run is."""


def foresee(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a run will measure, found without taking a step: `figures` and `evaluated` of `plan_run`, and its faults."""
    recipe = make_recipe(payload["recipe"])
    plan = make_plan(recipe, tokenizer=_tokenizer_of(recipe, payload["start"]))
    Trainer(plan, FAR, Group())
    return {"figures": _figures(plan), "evaluated": _evaluated(plan)}


def plan_run(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a run will cost, found before any is trained.

    Args:
        payload: `recipe` (plain data), `start` (RUN or RUN@step, or None), `amount` (how much of `unit` it may spend,
            or None for the recipe's own budget), `unit`.

    Returns:
        `steps`, `tokens`, `flops` of the whole run; `step_tokens` and `step_flops` of its dearest step; `figures` that
        it will produce, each with whether higher is better (None where only the run will tell), and `evaluated`, the
        beginnings of those that are measured on the way too; `tokenizer`, `judges` (the validation text of its domains,
        as much of it as is read), `tasks` and `weights`, by which figures of two arms compare or do not; `context` and
        `stateful` (whether the objective keeps something beside the model), by which runs merge or do not; `corpus`,
        the hash of each domain's documents; `scoring`, FLOPs that models took once to score them.
    """
    recipe = make_recipe(payload["recipe"])
    plan = make_plan(recipe, tokenizer=_tokenizer_of(recipe, payload["start"]))
    budget = recipe.budget if payload["amount"] is None else Budget(**{payload["unit"]: payload["amount"]})
    steps, pace, trainer = sized(plan, budget, Group())
    return {
        "steps": steps,
        "tokens": steps * plan.tokens_per_step,
        "flops": _total(pace, trainer, steps),
        "step_tokens": plan.tokens_per_step,
        "step_flops": max(pace.flops.values()),
        "figures": _figures(plan),
        "evaluated": _evaluated(plan),
        "tokenizer": plan.hashes["tokenizer"],
        "judges": {
            name: {
                "tokens": found.hash,
                "text": [found.documents, found.bytes],
                "read": min(recipe.evaluation.tokens, found.tokens),
                "all": found.tokens,
            }
            for name, found in plan.sets(recipe.evaluation.split).items()
        },
        "tasks": {name: hash_data(_what_counts(task)) for name, task in recipe.tasks.items()},
        "weights": plan.weights,
        "context": plan.context,
        "stateful": not trainer.objective.of_the_model_alone(),
        "corpus": plan.hashes["corpus"],
        "scores": plan.hashes.get("scores", {}),
        "scoring": sum(report.get("scoring_flops", 0) for report in plan.prepared.reports.values()),
    }


def run_trial(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run a trial, or one run of it, to a share of its budget or to its end.

    Args:
        payload: `recipe` (plain data), `folder`, `start` (RUN or RUN@step, or None), `until` (a share, or None).
    """
    recipe = make_recipe(payload["recipe"])
    start = payload["start"] if not (Path(payload["folder"]) / "recipe.yaml").is_file() else None
    done = run(recipe, out=payload["folder"], start_from=start, until=payload["until"], keep="figures", quiet=True)
    return {"cost": done.cost()}


def merge_trial(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the runs of a trial and measure what came out.

    Args:
        payload: `merge` (plain data of the part), `plugins`, `runs` (their folders), `folder` (of the result).
    """
    for name in payload["plugins"]:
        load_plugin(name)
    runs = [RunDirectory.open(path) for path in payload["runs"]]
    part = find(Merge, payload["merge"]["kind"])  # type: ignore[type-abstract]
    evaluate_merge(part.model_validate(payload["merge"]), runs, Path(payload["folder"]))
    return {"cost": RunDirectory(payload["folder"]).cost()}


def make_product(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Make a product, or find it made: a run in the cache, named by everything that goes into it.

    Args:
        payload: `recipe` (plain data), `until` (a share, or None).

    Returns:
        `path` of its run directory, `start` to begin from it, `model` (folder), `hash`, and what it `cost`.
    """
    recipe = make_recipe(payload["recipe"])
    name = _content_hash(recipe, payload["until"])
    folder = cache_folder() / "products" / name
    made = run(recipe, out=folder, until=payload["until"], quiet=True)
    cost, model = made.cost(), made.model_path
    if not (model / "config.json").is_file():
        export_run(made, model)
    start = str(folder) if payload["until"] is None else f"{folder}@{int(cost['steps'] or 0)}"
    return {"path": str(folder), "start": start, "model": str(model), "hash": name, "cost": cost}


def _content_hash(recipe: Recipe, until: float | None) -> str:
    plain = {key: value for key, value in recipe.identity().items() if key not in ("name", "track", "corpus")}
    corpus = {
        name: {key: value for key, value in domain.model_dump(mode="json").items() if key != "path"}
        for name, domain in recipe.corpus.items()
    }
    hashes = make_plan(recipe).hashes
    inputs = {name: hashes[name] for name in INPUTS if name in hashes}
    return hash_data({"recipe": plain, "corpus": corpus, "inputs": inputs, "until": until, "version": __version__})


def _tokenizer_of(recipe: Recipe, start: str | None) -> TextTokenizer | None:
    if start is None:
        return None
    modality = modality_named(recipe.objective.modality)
    return modality.load_tokenizer(RunDirectory.open(split_step(start)[0]).tokenizer_path)


def _what_counts(task: Task) -> dict[str, Any]:
    """A task as plain data, but for when it is measured."""
    return task.model_dump(mode="json", exclude={"every"})


def _total(pace: Pace, trainer: Trainer, steps: int) -> int:
    if len(pace.flops) == 1:
        return steps * next(iter(pace.flops.values()))
    dearest = max(pace.flops.values())
    return sum(pace.flops.get(trainer.kind(step), dearest) for step in range(steps))


def _figures(plan: Plan) -> dict[str, bool | None]:
    """Every figure that a run will end with, and whether higher is better."""
    figures: dict[str, bool | None] = {"loss": False}
    domains = plan.sets(plan.recipe.evaluation.split)
    if domains:
        figures["validation/loss"] = False
    if len(domains) > 1:
        figures |= {"validation/mean_loss": False, "validation/worst_loss": False}
    for name in domains:
        figures |= {f"validation/{name}/loss": False, f"validation/{name}/bits_per_byte": False}
    if domains and plan.recipe.stages:
        figures |= dict(STAGE_FIGURES)
    for name, task in plan.recipe.tasks.items():
        measures: Mapping[str, bool | None] = task.measures if task.measures is not None else {"": None}
        figures |= {f"task/{name}/{metric}": higher for metric, higher in measures.items()}
    for probe in plan.recipe.probes:
        figures[f"probe/{probe.kind}/"] = None
    return figures


def _evaluated(plan: Plan) -> list[str]:
    """Beginnings of the names of figures that are measured while a run goes on, too."""
    tasks = [f"task/{name}/" for name, task in plan.recipe.tasks.items() if task.every is not None]
    return ["loss", "validation/", "stages/", "probe/", *tasks]
