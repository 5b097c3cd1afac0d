"""Everything the command line does, as one call each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foretrain import comparison, exporting
from foretrain.batch import Batch
from foretrain.claims.listing import list_claims as list_claims
from foretrain.claims.running import run_claim as run_claim
from foretrain.claims.running import show_claim as show_claim
from foretrain.console import Terminal
from foretrain.curation.commands import build_corpus as build_corpus
from foretrain.errors import RequestError
from foretrain.files import write_atomic
from foretrain.finetuning import finetune as finetune
from foretrain.flipping import compare_flips
from foretrain.forecasts.commands import forecast as forecast
from foretrain.forecasts.ledger import ledger as ledger
from foretrain.generation import generate
from foretrain.merging.logits import CombinedSubject
from foretrain.merging.writing import read_merge, reopened, write_merge
from foretrain.modalities.base import modality_of
from foretrain.models.pretrained import Pretrained
from foretrain.plan import Plan, make_plan
from foretrain.recipe import Recipe
from foretrain.recipe import load_recipe as load_recipe
from foretrain.recipe import make_recipe as make_recipe
from foretrain.reports.flips_report import flips_page
from foretrain.reports.run_report import write_report
from foretrain.run_directory import RunDirectory
from foretrain.run_directory import list_runs as list_runs
from foretrain.running import read_request
from foretrain.running import run as run
from foretrain.studies.commands import noise as noise
from foretrain.studies.commands import study as study
from foretrain.subject import Subject
from foretrain.task_file import read_tasks
from foretrain.tasks.base import Task

RunLike = RunDirectory | Path | str


def check(recipe: Recipe | Path | str, *, overrides: Sequence[str] = (), minutes: float | None = None) -> Plan:
    """Resolve a recipe completely and train nothing: tokens, shapes, FLOPs, memory, time."""
    terminal = Terminal()
    with terminal.counting("Tokenizing", "tokens") as progress:
        return make_plan(read_request(recipe, overrides, minutes, None, None), progress=progress.update)


def open_run(path: Path | str) -> RunDirectory:
    """A run directory, for reading."""
    return RunDirectory.open(path)


def _open(run: RunLike) -> RunDirectory:
    return run if isinstance(run, RunDirectory) else RunDirectory.open(run)


def export(run: RunLike, *, to: str = "hf", out: Path | str | None = None, step: int | None = None) -> Path:
    """Write a run's model as a folder that `transformers` loads; returns the folder.

    Raises:
        RequestError: an unknown format, a run without a checkpoint, or a folder that is in the way.
    """
    if to != "hf":
        raise RequestError(f"--to {to}: there is one format, 'hf' (a folder for Hugging Face transformers).")
    directory = _open(run)
    folder = Path(out) if out is not None else directory.path / "export"
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").is_file():
        raise RequestError(f"--out {folder}: the folder holds other things; name a new one.")
    return exporting.export_run(directory, folder, step)


def merge(file: Path | str, *, out: Path | str) -> dict[str, Any]:
    """Make one model of several as a merge file says, in a folder of its own; one tensor in memory at a time.

    Returns:
        What its `merge.json` says: the formula, the hash of every input, and what was found on the way.

    Raises:
        RequestError: faults in the file, models that do not fit together, or a folder that is in the way.
    """
    return write_merge(read_merge(Path(file)), Path(out))


def subject_of(run: RunLike, step: int | None = None) -> Any:
    """A run's model (or what `foretrain merge` made), ready to be evaluated or sampled from."""
    path = run.path if isinstance(run, RunDirectory) else Path(run)
    if step is None and (merged := reopened(path)) is not None:
        return merged.subject
    if not (path / "recipe.yaml").is_file() and (path / "config.json").is_file():
        return _of_folder(path)
    model, tokenizer = exporting.load_run_model(_open(run), step)
    return modality_of(model.config).subject(model, tokenizer, int(_open(run).plan()["model"]["context"]))


def _of_folder(folder: Path) -> Any:
    """The model of a folder that `transformers` saved."""
    part = Pretrained(path=str(folder))
    config = part.config(1, {})
    modality = modality_of(config)
    return modality.subject(part.build(config, 0), modality.load_tokenizer(folder), part.context_length(config))


def sample(
    run: RunLike,
    prompts: Sequence[str] = ("",),
    *,
    tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    count: int = 1,
    step: int | None = None,
) -> list[dict[str, str]]:
    """Text that a run's model writes after each prompt: `prompt` and `text` each."""
    subject = subject_of(run, step)
    if not isinstance(subject, Subject | CombinedSubject):
        raise RequestError(f"{run} holds no model of text, so there is nothing to sample from it.")
    repeated = [prompt for prompt in prompts for _ in range(count)]
    texts = generate(subject, repeated, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    return [text.plain() for text in texts]


def evaluate(run: RunLike, *, tasks: Path | str | None = None, step: int | None = None) -> dict[str, Any]:
    """Every task of the run's recipe (or of another YAML file with a `tasks:` mapping) on its model."""
    directory = _open(run)
    recipe = directory.load_recipe()
    wanted = recipe.tasks if tasks is None else read_tasks(Path(tasks))
    if not wanted:
        raise RequestError(f"The recipe of {directory.path} names no tasks; give a YAML file with `tasks:` by --tasks.")
    subject = subject_of(directory, step)
    found = {name: task.evaluate(subject, recipe.seed) for name, task in wanted.items()}
    return {name: {metric: measured.plain() for metric, measured in metrics.items()} for name, metrics in found.items()}


def flips(
    old: RunLike,
    new: RunLike,
    *,
    tasks: Path | str | None = None,
    metric: str | None = None,
    out: Path | str | None = None,
) -> dict[str, Any]:
    """What a new model gets wrong that an old one got right, task by task and item by item.

    Args:
        old: a run, a model's folder, or a hub id.
        new: the same; where it is a run, its recipe's tasks are those that both do.
        tasks: a YAML file with `tasks:` that both do instead.
        metric: the metric whose items are compared; unset: the first of each task that tells of single items.
        out: write a page (HTML) with every item that flipped there.

    Raises:
        RequestError: there is no task, a model cannot be read, or a metric does not tell of single items.
    """
    paths = [str(each.path if isinstance(each, RunDirectory) else each) for each in (old, new)]
    found = compare_flips(paths[0], paths[1], _tasks_of(paths[1], tasks), metric)
    if out is not None:
        write_atomic(Path(out), flips_page(found))
    return {**found, "page": None if out is None else str(out)}


def _tasks_of(path: str, tasks: Path | str | None) -> dict[str, Task]:
    """The tasks of a YAML file, or those of the recipe of the run at a path."""
    if tasks is not None:
        return read_tasks(Path(tasks))
    run = RunDirectory(Path(path))
    known = dict(run.load_recipe().tasks) if run.recipe() else {}
    if not known:
        raise RequestError(f"{path} is no run whose recipe names tasks; give a YAML file with `tasks:` by --tasks.")
    return known


def report(run: RunLike) -> Path:
    """Write (again) the report of a run from its files; returns its path."""
    return write_report(_open(run))


def compare(runs: Sequence[RunLike]) -> dict[str, Any]:
    """Runs side by side: final figures, costs, and the recipe keys in which they differ."""
    return comparison.compare([_open(run) for run in runs])


def show_data(
    recipe: Recipe | Path | str, *, overrides: Sequence[str] = (), batches: int = 1, rows: int = 4
) -> list[dict[str, Any]]:
    """The first rows of the first training batches, decoded: text, domain, documents, loss mask, position."""
    plan = make_plan(read_request(recipe, overrides, None, None, None))
    stream, objective, shown = plan.stream(), plan.recipe.objective.model_copy(deep=True), []
    objective.fit(plan.tokenizer, plan.context)
    for _ in range(batches):
        batch = objective.prepare(stream.batch())
        shown += [_shown_row(plan, batch, row, stream.sources(row)) for row in range(min(rows, batch.rows))]
        stream.advance()
    return shown


def _shown_row(plan: Plan, batch: Batch, row: int, sources: list[str]) -> dict[str, Any]:
    mask = batch["mask"][row]
    return {
        "step": batch.step,
        "position": int(batch.positions[row]),
        "domain": batch.domains[int(batch["domain"][row])],
        "documents": sources,
        "loss_tokens": int(mask.sum()),
        "tokens": plan.context,
        "text": plan.modality.row({name: tensor[row] for name, tensor in batch.items()}, plan.tokenizer),
        "masked": [place for place, on in enumerate(mask.tolist()) if not on],
    }


def demo(out: Path | str = "studies/demo", *, quiet: bool = False) -> dict[str, Any]:
    """Steer small models by feedback beside plain ones and a control, in some minutes on two cores.

    Returns:
        What `study.json` holds.
    """
    return study(Path(__file__).parent / "recipes" / "demo.yaml", out=out, quiet=quiet)
