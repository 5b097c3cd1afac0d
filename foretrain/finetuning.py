"""Fine-tuning a run's model, or any model in a folder, on the tasks of a file: the grid, the choice, how it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foretrain import exporting
from foretrain.errors import RequestError, unknown_name
from foretrain.modalities.base import modality_of
from foretrain.models.pretrained import Pretrained
from foretrain.parts import kinds
from foretrain.run_directory import RunDirectory
from foretrain.subject import Subject
from foretrain.task_file import read_tasks
from foretrain.tasks._finetuning import best
from foretrain.tasks._finetuning_task import FineTuningTask, measured
from foretrain.tokens.tokenizer import TextTokenizer


def finetune(model: RunDirectory | Path | str, tasks: Path | str, step: int | None = None) -> dict[str, Any]:
    """Fine-tune on every task of a file; the model stays as it is.

    Args:
        model: a run, or a folder with a model and its tokenizer.
        tasks: a YAML file with `tasks:`, each of a kind that fine-tunes.
        step: take the run's checkpoint of this step.

    Returns:
        By task `metrics` (value and 95 % interval of each), the chosen `rate`, and the `grid`: every rate with its mean
        accuracy on the items that choose (`chosen`) and on those that judge (`accuracy`).

    Raises:
        RequestError: there is no such model, the file is faulty, or a task of it does not fine-tune.
    """
    read = read_finetuning(Path(tasks))
    subject = model_at(model, step)
    found = {}
    for name, task in read.items():
        grid = task.grid(subject)
        found[name] = {
            "rate": best(grid).rate,
            "metrics": {metric: value.plain() for metric, value in measured(grid).items()},
            "grid": [{"rate": each.rate, "chosen": each.chosen, "accuracy": each.accuracy} for each in grid],
        }
    return found


def read_finetuning(path: Path) -> dict[str, FineTuningTask[Any]]:
    """The tasks of a file that fine-tune, checked.

    Raises:
        RequestError: the file is faulty, or a task of it does something else.
    """
    found = {}
    for name, task in read_tasks(path, "finetune").items():
        if not isinstance(task, FineTuningTask):
            able = kinds(FineTuningTask)  # type: ignore[type-abstract]
            told = unknown_name("kind that fine-tunes", task.kind, able)
            raise RequestError(f"{path}, tasks.{name}: {told} `foretrain evaluate` measures tasks of every kind.")
        task.check()
        found[name] = task
    return found


def model_at(model: RunDirectory | Path | str, step: int | None = None) -> Subject:
    """A run's model, or the model in a folder with its tokenizer, as tasks see it.

    Raises:
        RequestError: there is neither, or it is not one of text.
    """
    path = model.path if isinstance(model, RunDirectory) else Path(model)
    if (path / "recipe.yaml").is_file():
        run = RunDirectory.open(path)
        network, tokenizer = exporting.load_run_model(run, step)
        context = int(run.plan()["model"]["context"])
    elif (path / "config.json").is_file():
        part = Pretrained(path=str(path))
        config = part.config(1, {})
        network, context = part.build(config, 0), part.context_length(config)
        tokenizer = TextTokenizer.load(path)
    else:
        raise RequestError(f"{path} is neither a run directory (recipe.yaml) nor a model's folder (config.json).")
    subject = modality_of(network.config).subject(network, tokenizer, context)
    if not isinstance(subject, Subject):
        raise RequestError(f"{path} holds no model of text, and these tasks are on texts.")
    return subject
