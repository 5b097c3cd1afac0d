"""Export: a run's model as a folder that plain `transformers` loads, with a card that says what it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from foretrain import faults
from foretrain.checkpoints import Checkpointer
from foretrain.errors import RequestError, RunError
from foretrain.files import written_folder
from foretrain.modalities.base import Processor, modality_named, modality_of
from foretrain.models.base import from_folder
from foretrain.parametrizations.base import Parametrization
from foretrain.recipe import Recipe
from foretrain.run_directory import RunDirectory
from foretrain.tokens.tokenizer import TextTokenizer


def save_model(
    model: PreTrainedModel, processor: Processor, card: str, folder: Path, beside: Path | None = None
) -> Path:
    """Write model (safetensors), tokenizer (or what stands in its place) and card as one folder.

    Folders in `beside` come along.

    It replaces what was there in one rename.

    Raises:
        RunError: the disk is full, or the folder can't be written; what was there before is intact.
    """
    logging.disable_progress_bar()
    with written_folder(folder, "The model") as made:
        try:
            faults.reach("write")
            model.save_pretrained(made)
        except SafetensorError as error:
            raise RunError(f"The model could not be written to {folder}: {error}.") from error
        processor.save(made)
        (made / "README.md").write_text(card, encoding="utf-8")
        for own in sorted(beside.iterdir()) if beside is not None else ():
            if own.is_dir():
                shutil.copytree(own, made / own.name)
    return folder


def trained_from_state(
    recipe: Recipe, config: Any, state: Mapping[str, torch.Tensor]
) -> tuple[Parametrization, nn.Module]:
    """The model as it was trained, from its state (`Learner.state_dict`, whole tensors), in fp32 on the CPU."""
    model = recipe.model.build(config, recipe.seed)
    parametrization = recipe.parametrization.model_copy(deep=True)
    trained = parametrization.apply(model, recipe.seed)
    buffers = {name.removeprefix("buffer."): tensor for name, tensor in state.items() if name.startswith("buffer.")}
    parameters = dict(trained.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
        for name, buffer in trained.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
    return parametrization, trained


def model_from_state(recipe: Recipe, config: Any, state: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The plain model whose trained state is given, in fp32 on the CPU."""
    return _merged(*trained_from_state(recipe, config, state))


def save_trained(part: Parametrization, trained: nn.Module, processor: Processor, card: str, folder: Path) -> Path:
    """Write a model as it was trained as a folder of the plain one, and in it what the parametrization leaves."""
    with tempfile.TemporaryDirectory() as own:
        part.save(trained, Path(own))
        return save_model(_merged(part, trained), processor, card, folder, Path(own))


def _merged(part: Parametrization, trained: nn.Module) -> PreTrainedModel:
    merged = part.merge(trained)
    assert isinstance(merged, PreTrainedModel)
    return merged


def load_run_model(run: RunDirectory, step: int | None = None) -> tuple[PreTrainedModel, TextTokenizer | None]:
    """A run's model and tokenizer: the exported model of a finished run, or any checkpoint it still has.

    The tokenizer is None where the model is not of text.

    Raises:
        RequestError: the run has no such checkpoint, or none at all yet.
    """
    if step is None and _exported(run):
        config = AutoConfig.from_pretrained(run.model_path)
        tokenizer = modality_of(config).load_tokenizer(run.tokenizer_path)
        return from_folder(str(run.model_path), config)[0].eval(), tokenizer
    part, trained, _, tokenizer = _trained(run, step)
    return _merged(part, trained).eval(), tokenizer


def _exported(run: RunDirectory) -> bool:
    return (run.model_path / "config.json").is_file()


def _trained(run: RunDirectory, step: int | None) -> tuple[Parametrization, nn.Module, Any, TextTokenizer | None]:
    """The model of a checkpoint as it was trained, with its parametrization, config and tokenizer."""
    tree = checkpoint_of(run, step, only=["model"])
    recipe = run.load_recipe()
    config = AutoConfig.from_pretrained(run.config_path)
    tokenizer = modality_of(config).load_tokenizer(run.tokenizer_path)
    return *trained_from_state(recipe, config, tree["model"]), config, tokenizer


def checkpoint_of(run: RunDirectory, step: int | None = None, only: Sequence[str] | None = None) -> dict[str, Any]:
    """The tree of a run's checkpoint at `step` (the newest if None), or some of its entries, verified."""
    checkpointer = Checkpointer(run.checkpoints_path, owner=False)
    steps = checkpointer.steps()
    if not steps:
        raise RequestError(f"{run.path} holds no checkpoint yet.")
    return dict(checkpointer.load(steps[-1] if step is None else step, only))


def export_run(run: RunDirectory, folder: Path, step: int | None = None) -> Path:
    """Write a run's model, as it ended or as it was at a step, as a folder that `transformers` loads.

    Raises:
        RequestError: the run has no such checkpoint, or none at all yet.
        RunError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if step is None and _exported(run):
        model, tokenizer = load_run_model(run)
        processor = modality_of(model.config).processor(model.config, tokenizer)
        return save_model(model, processor, _card(run, step), folder, run.model_path)
    part, trained, config, tokenizer = _trained(run, step)
    return save_trained(part, trained, modality_of(config).processor(config, tokenizer), _card(run, step), folder)


def _card(run: RunDirectory, step: int | None) -> str:
    card, result = run.model_path / "README.md", run.result()
    if card.is_file():
        return card.read_text(encoding="utf-8")
    if result is None or result["status"] != "done" or step not in (None, result["cost"]["steps"]):
        return f"# {run.name}\n\nA checkpoint of a run that has not ended.\n"
    return model_card(run.load_recipe(), run.plan(), result)


def _interval(measured: Mapping[str, Any]) -> str:
    low, high = measured["low"], measured["high"]
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f} "


def model_card(recipe: Recipe, plan: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """A model card in Markdown: recipe, data, budget and results."""
    cost = result["cost"]
    validation = result.get("validation", {})
    lines = [
        "---",
        "library_name: transformers",
        "tags: [foretrain]",
        "---",
        "",
        f"# {recipe.name}",
        "",
        f"A {plan['model']['type']} model of {plan['parameters']:,} parameters, trained with foretrain.",
        "",
        "```python",
        *modality_named(recipe.objective.modality).loading(str(plan["model"]["type"])),
        "```",
        "",
        "## Data",
        "",
        f"| domain | share | training tokens | {recipe.evaluation.split} tokens | hash |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, splits in plan["domains"].items():
        counts = [f"{splits.get(split, {}).get('tokens', 0):,}" for split in ("train", recipe.evaluation.split)]
        if "unique" in splits.get("train", {}):
            counts[0] = f"{splits['train']['unique']:,} of {counts[0]}"
        if "kept_of" in splits.get("train", {}):
            counts[0] += f" kept of {splits['train']['kept_of']['tokens']:,}"
        cells = [name, f"{plan['weights'][name]:.3f}", *counts, f"`{plan['hashes']['corpus'].get(name, '')}`"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Budget", "", "| steps | tokens | FLOPs | seconds |", "| --- | --- | --- | --- |"]
    lines.append(f"| {cost['steps']:,} | {cost['tokens']:,} | {cost['flops']:.3g} | {cost['seconds']:.0f} |")
    lines += ["", "## Results", "", "| figure | value | 95 % interval |", "| --- | --- | --- |"]
    lines += [f"| {recipe.evaluation.split} {name} | {value:.4f} | |" for name, value in validation.items()]
    for task, metrics in result.get("tasks", {}).items():
        lines += [
            f"| {task} {metric} | {m['value']:.4f} | {_interval(m)}({m['items']} items) |"
            for metric, m in metrics.items()
        ]
    lines += ["", "## Recipe", "", "```yaml", recipe.to_yaml().rstrip(), "```", ""]
    return "\n".join(lines)
