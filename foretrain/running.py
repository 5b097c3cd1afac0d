"""Running: a recipe from its request to its end: begun, continued, branched or extended, in a directory of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from foretrain import comparison, dial, exporting
from foretrain.budget import pause_step
from foretrain.closing import Keep
from foretrain.console import Terminal
from foretrain.distributed import Group, end_group, start_group
from foretrain.errors import Interrupted, RequestError
from foretrain.execution import Run, execute
from foretrain.kernels.process import tune_allocator
from foretrain.lock import RunLock
from foretrain.modalities.base import modality_named
from foretrain.plan import Plan, make_plan
from foretrain.recipe import Recipe, load_recipe, make_recipe, read_recipe
from foretrain.reports.run_report import write_report
from foretrain.run_directory import RunDirectory, split_step
from foretrain.signals import sigterm_interrupts

FREE_TO_CHANGE = ("track", "checkpoint", "evaluation.every", "plugins")
"""Keys that may differ when a run is resumed: they change what is written, never what is computed."""
_EXTENSION = ("budget", "schedule")
"""Keys that may also differ when a finished run is extended."""


def run(
    recipe: Recipe | Path | str,
    *,
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    start_from: str | None = None,
    restart: bool = False,
    minutes: float | None = None,
    name: str | None = None,
    quiet: bool = False,
    started: float | None = None,
    until: float | None = None,
    keep: Keep = "all",
) -> RunDirectory:
    """Run a recipe (or a bare text file) to its end, or on from where an earlier call of the same was stopped.

    Args:
        recipe: a recipe, the path of one, or the path of a text file or folder to train on as it is.
        out: the run directory; `runs/NAME` if None.
        overrides: `a.b=c` each.
        start_from: `RUN` or `RUN@step`: begin with the weights of another run.
        restart: forget what the directory holds of an earlier run.
        minutes: budget in minutes, in place of the recipe's.
        name: name of the run, in place of the recipe's.
        quiet: show no progress.
        started: `time.time()` from which a budget in minutes counts; now if None.
        until: pause after this share of the run's steps, evaluated and with a checkpoint; the same call with a larger
            share, or None, goes on exactly. None or 1: to the end.
        keep: what to leave at the end; "figures": checkpoints and `result.json`, but no exported model, no samples and
            no report (`export`, `sample` and `report` make them from the checkpoint).

    Raises:
        RequestError: something about the request is wrong; nothing was trained.
        RunError: the run failed.
        Interrupted: it was stopped by a signal and can be resumed.
    """
    started = time.time() if started is None else started
    tune_allocator()
    group = start_group()
    terminal = Terminal(quiet=quiet, main=group.main)
    parent = _parent(start_from)
    read = read_request(recipe, overrides, minutes, name, parent)
    until = _share(until, read)
    folder = Path(out) if out is not None else Path("runs") / read.name
    try:
        with sigterm_interrupts(), RunLock(folder) if group.main else nullcontext():
            group.wait()
            return _run(read, folder, group, terminal, started, parent, restart, until, keep)
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted; the same command goes on with {folder}.") from None
    finally:
        end_group()


def _run(
    recipe: Recipe,
    folder: Path,
    group: Group,
    terminal: Terminal,
    started: float,
    parent: tuple[RunDirectory, int | None] | None,
    restart: bool,
    until: float | None,
    keep: Keep,
) -> RunDirectory:
    directory = RunDirectory(folder)
    if restart and group.main:
        directory.clear()
    group.wait()
    # The recipe is written last: without it, an earlier command was killed before it had begun.
    frozen, start = (directory.plan() if directory.recipe() else {}), 0
    if frozen:
        _refuse_other_parent(frozen["parent"], parent, folder)
        changed, ended = _changes(directory, recipe), _steps_done(directory)
        if not changed and ended == frozen["total_steps"]:
            if keep == "all" and group.main and not directory.report_path.is_file():
                write_report(directory)  # it was cut off before its last file, or kept its figures only
            terminal.say(f"{folder} is done; nothing to do (`--restart` runs it again).")
            return directory
        _refuse_changes(directory, changed, ended is not None)
        if ended is None and until is not None and _stands_at(directory, frozen, until):
            terminal.say(f"{folder} has come to {until:.0%} of its steps; nothing to do.")
            return directory
        start = int(frozen["start"]) if ended is None else ended
        if ended is not None:
            frozen["total_steps"] = None
        parent = None
        if frozen["parent"] and not directory.checkpoints():
            parent = RunDirectory.open(frozen["parent"]["run"]), frozen["parent"]["step"]
    source = directory if frozen else parent[0] if parent else None
    modality = modality_named(recipe.objective.modality)
    tokenizer = None if source is None else modality.load_tokenizer(source.tokenizer_path)
    with terminal.counting(*modality.counting) as progress:
        plan = make_plan(
            recipe, group, tokenizer=tokenizer, precision=frozen.get("precision"), progress=progress.update
        )
    for note in plan.notes:
        terminal.warn(note)
    _refuse_other_data(frozen, plan, folder)
    if frozen.get("total_steps"):
        plan.total_steps = frozen["total_steps"]
    plan.parent = frozen.get("parent")
    tree, same = None, set[str]()
    if parent is not None:
        tree = exporting.checkpoint_of(*parent)
        plan.parent = {"run": str(parent[0].path.resolve()), "step": tree["step"], "name": parent[0].name}
        same = _same_domains(parent[0], plan)
        if not frozen:
            terminal.say(
                f"starting from {parent[0].name} at step {tree['step']}; the learning rate warms up again "
                "(schedule.warmup: 0 for not)."
            )
    elif start:
        terminal.say(
            f"extending a finished run at step {start}; the learning rate warms up again (schedule.warmup: 0 for not)."
        )
    result = execute(
        Run(
            plan,
            folder,
            group,
            terminal,
            started=started,
            tree=tree,
            same_domains=same,
            start=start,
            until=until,
            pauses=frozen.get("pauses", ()),
            keep=keep,
        )
    )
    if result is None:
        terminal.say(f"paused: the checkpoint is in {directory.checkpoints_path}; the same command goes on from there")
    elif keep == "all":
        terminal.say(f"done: model {directory.model_path}, report {directory.report_path}")
    else:
        terminal.say(f"done: figures {directory.result_path}")
    return directory


def _share(until: float | None, recipe: Recipe) -> float | None:
    if until is None or until == 1:
        return None
    if not 0 < until < 1:
        raise RequestError(f"until: a run is paused after a share of its steps between 0 and 1 (given: {until}).")
    if recipe.budget.minutes is not None:
        raise RequestError(
            "until: a budget in minutes says when the run ends, not where, so there is no share of its steps to pause "
            "at; give the budget in steps, tokens or FLOPs."
        )
    return until


def _stands_at(directory: RunDirectory, frozen: dict[str, Any], until: float) -> bool:
    """Whether a run has come to its pause, or beyond."""
    checkpoints, pause = directory.checkpoints(), pause_step(until, frozen["total_steps"])
    return bool(checkpoints) and pause < frozen["total_steps"] and pause <= int(checkpoints[-1].name[5:])


def _refuse_other_parent(
    known: dict[str, Any] | None, asked: tuple[RunDirectory, int | None] | None, folder: Path
) -> None:
    if asked is None:
        return
    if known is None or known["run"] != str(asked[0].path.resolve()) or asked[1] not in (None, known["step"]):
        began = f"from {known['run']} at step {known['step']}" if known else "from new weights"
        raise RequestError(
            f"--from: {folder} holds a run that began {began}; it goes on without `--from`. Use `--restart` to begin "
            "again, or another name or `--out`."
        )


def _steps_done(directory: RunDirectory) -> int | None:
    """Steps of a run that came to its end; None for one that has not."""
    result = directory.result()
    return int(result["cost"]["steps"]) if result is not None and result["status"] == "done" else None


def _same_domains(parent: RunDirectory, plan: Plan) -> set[str]:
    """Domains of the same name and tokens as in the run before, whose order therefore goes on."""
    before, now = parent.plan()["hashes"]["tokens"], plan.hashes["tokens"]
    same_seed = parent.recipe()["seed"] == plan.recipe.seed and parent.plan()["model"]["context"] == plan.context
    return {name for name in now if same_seed and before.get(name, {}).get("train") == now[name].get("train")}


def _parent(start_from: str | None) -> tuple[RunDirectory, int | None] | None:
    if start_from is None:
        return None
    path, step = split_step(start_from)
    if step is None and "@" in start_from:
        raise RequestError(f"--from {start_from}: after @ stands a step, such as RUN@1000.")
    return RunDirectory.open(path), step


def read_request(
    recipe: Recipe | Path | str,
    overrides: Sequence[str],
    minutes: float | None,
    name: str | None,
    parent: tuple[RunDirectory, int | None] | None,
) -> Recipe:
    """The recipe that a request stands for: read, or made by the dial for a bare text, with its changes."""
    changes = [*overrides]
    if minutes is not None:
        changes.append(f"budget.minutes={minutes}")
    if name is not None:
        changes.append(f"name={name}")
    if isinstance(recipe, Recipe):
        return make_recipe(recipe.plain(), overrides=changes) if changes else recipe
    path = Path(recipe)
    if not path.exists() or path.suffix not in (".yaml", ".yml"):
        return make_recipe(dial.recipe_for(path, minutes), overrides=changes, source=str(path))
    if parent is None:
        return load_recipe(path, changes)
    # A continued run may leave its model to the run it starts from.
    data = {"model": parent[0].recipe()["model"], **read_recipe(path)}
    return make_recipe(data, folder=path.parent, overrides=changes, source=str(path))


def _changes(directory: RunDirectory, recipe: Recipe) -> list[tuple[str, Any, Any]]:
    found = comparison.recipe_difference(directory.recipe(), recipe.plain())
    return [change for change in found if not change[0].startswith(FREE_TO_CHANGE)]


def _refuse_changes(directory: RunDirectory, changed: list[tuple[str, Any, Any]], finished: bool) -> None:
    """A finished run may be extended by a larger budget; nothing else that is computed may change."""
    refused = [change for change in changed if not (finished and change[0].startswith(_EXTENSION))]
    if refused:
        keys = "; ".join(f"{key} was {before!r} and is {now!r}" for key, before, now in refused)
        raise RequestError(
            f"The recipe differs from the one {directory.path} was started with: {keys}. Use `--restart` to begin "
            "again, or another name or `--out`."
        )


def _refuse_other_data(frozen: dict[str, Any], plan: Plan, folder: Path) -> None:
    if not frozen:
        return
    before, now = frozen["hashes"], plan.hashes
    differs = [f"domain {name}" for name, value in before["corpus"].items() if now["corpus"].get(name) != value]
    told = before.get("feedback", {})
    differs += [f"feedback {name}" for name, value in told.items() if now["feedback"].get(name) != value]
    scored = before.get("scores", {})
    now_scored = now.get("scores", {})
    differs += [f"the scores of domain {name}" for name, value in scored.items() if now_scored.get(name) != value]
    if before["tokenizer"] != now["tokenizer"]:
        differs.append("the tokenizer")
    if differs:
        raise RequestError(
            f"The data of {folder} changed since it was started ({', '.join(differs)}), so it cannot go on exactly. "
            "Put the files back, use `--restart`, or start a new run with `--from`."
        )
