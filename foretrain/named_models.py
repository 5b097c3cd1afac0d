"""Named models: other models that a recipe names once, for the parts that learn from them (a teacher, a scorer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import hash_data, hash_file
from foretrain.kernels.accelerate import accelerate
from foretrain.models.base import families, family
from foretrain.models.pretrained import DEFAULT_CONTEXT, Pretrained
from foretrain.objectives.outputs import Outputs, has_plain_head
from foretrain.run_directory import RunDirectory
from foretrain.section import ModelPath, Section
from foretrain.subject import Subject

if TYPE_CHECKING:
    from foretrain.batch import Batch
    from foretrain.context import Context
    from foretrain.tokens.tokenizer import TextTokenizer


class NamedModel(Section):
    """Another model that parts of the recipe may name; it is read, and never trained."""

    path: ModelPath | list[ModelPath]
    """A model folder, a run's directory, a hub id, or (in a study) `product:NAME`. A list is an ensemble: the mean of
    their logits."""

    @property
    def paths(self) -> list[str]:
        """Every path."""
        return [self.path] if isinstance(self.path, str) else list(self.path)

    def content(self) -> str:
        """Hash of the weights, where they lie on this machine; of the name, where the hub has them."""
        return hash_data([_content(path) for path in self.paths])


class Reference:
    """A named model, ready to be read: in eval mode, without gradients, in the precision that the run computes in.

    Every rank holds the whole of it, however the run's own model is sharded.

    Attributes:
        name: that the recipe gives it.
        models: one, or the members of an ensemble.
        vocabulary: how many tokens it tells apart.
    """

    def __init__(self, name: str, named: NamedModel, context: Context) -> None:
        self.name, self._context = name, context
        if not named.paths:
            raise RequestError(f"models.{name}: the list of paths is empty; name one model at least.")
        self.models = [self._ready(path) for path in named.paths]
        sizes = {int(model.config.vocab_size) for model in self.models}  # type: ignore[union-attr, arg-type]
        if len(sizes) > 1:
            raise RequestError(f"models.{name}: its members have vocabularies of {sorted(sizes)}; they should be one.")
        self.vocabulary = sizes.pop()

    @torch.no_grad()
    def outputs(self, batch: Batch) -> Outputs:
        """What the model says of a prepared batch (of this rank's rows), as the run's objective reads a model.

        Of an ensemble these are its logits, the mean of its members'.
        """
        objective, learner = self._context.objective, self._context.learner
        with learner.autocast():
            found = [objective.forward(model, batch) for model in self.models]
            if len(found) == 1:
                return found[0]
            return Outputs(logits=torch.stack([outputs.logits().float() for outputs in found]).mean(0))

    def _ready(self, path: str) -> nn.Module:
        context, where = self._context, f"models.{self.name}"
        model, tokenizer = read_model(path, where)
        if context.text is not None:
            if tokenizer is None:
                raise RequestError(f"{where}: {path} has no tokenizer beside it, so its tokens cannot be told to fit.")
            if tokenizer.hash != context.text.hash:
                raise RequestError(
                    f"{where}: {path} was trained with another tokenizer than this run's, so a token is not the same "
                    "thing to both. Name a model with this run's tokenizer, or set the run's `tokenizer` to "
                    f"{{kind: pretrained, path: {path}}}."
                )
        for member in context.recipe.objective.members():
            if member.family not in ("any", *families(model.config)):  # type: ignore[arg-type]
                raise RequestError(
                    f"{where}: {path} is of the family '{family(model.config)}', and this run's objective reads "  # type: ignore[arg-type]
                    f"'{member.family}'."
                )
        positions = getattr(model.config, "max_position_embeddings", None)
        if isinstance(positions, int) and positions < context.length:
            raise RequestError(
                f"{where}: {path} reads {positions} tokens at once, fewer than this run's windows of {context.length}."
            )
        model = accelerate(model).eval().requires_grad_(False).to(context.device)
        if context.learner.precision == "bf16":
            for parameter in model.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
        has_plain_head(model)
        return model


def open_named(models: Mapping[str, NamedModel], name: str, context: Context) -> Reference:
    """The named model of a recipe.

    Raises:
        RequestError: the recipe has none of that name, or it does not fit the run.
    """
    if name not in models:
        given = unknown_name("model", name, models) if models else f"the recipe has none, so there is no '{name}'"
        raise RequestError(f"models: {given}.")
    return Reference(name, models[name], context)


def _run_at(path: str) -> RunDirectory | None:
    """The run whose directory this is."""
    return RunDirectory(Path(path)) if (Path(path) / "recipe.yaml").is_file() else None


def read_model(path: str, where: str) -> tuple[Any, TextTokenizer | None]:
    """A model in fp32, by the path that a recipe may give one: a run's directory, a folder or a hub id.

    Returns:
        The model, and its tokenizer, where one lies beside it that can be read.

    Raises:
        RequestError: it cannot be read; `where` says who asked for it.
    """
    from foretrain.exporting import load_run_model

    run = _run_at(path)
    if run is not None:
        return load_run_model(run)
    part = Pretrained(path=path)
    try:
        config = part.config(1, {})
        model = part.build(config, 0)
    except RequestError as error:
        raise RequestError(f"{where}: {error}") from error
    if family(config) == "vision":
        return model, None
    try:
        return model, part.default_tokenizer().build(lambda: iter(()))
    except RequestError:
        return model, None


def read_subject(path: str, where: str, context: int = DEFAULT_CONTEXT, device: torch.device | None = None) -> Subject:
    """A model of text with its tokenizer, ready to be evaluated; it reads `context` tokens at once, or what it can.

    Raises:
        RequestError: it cannot be read, or has no tokenizer beside it.
    """
    model, tokenizer = read_model(path, where)
    if tokenizer is None:
        raise RequestError(f"{where}: {path} has no tokenizer beside it that can be read, so it reads no text.")
    positions = getattr(model.config, "max_position_embeddings", None)
    reads = min(context, positions) if isinstance(positions, int) else context
    return Subject(model if device is None else model.to(device), tokenizer, reads)


def _load(path: str, where: str) -> tuple[Any, str | None]:
    """A model in fp32, and the hash of its tokenizer."""
    model, tokenizer = read_model(path, where)
    return model, None if tokenizer is None else tokenizer.hash


def _content(path: str) -> str:
    run = _run_at(path)
    folder = Path(path)
    if run is not None:
        newest = run.checkpoints()[-1:]
        folder = run.model_path if (run.model_path / "config.json").is_file() else newest[0] if newest else folder
    files: Sequence[Path] = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    return hash_data([hash_file(file) for file in files]) if files else hash_data(path)
