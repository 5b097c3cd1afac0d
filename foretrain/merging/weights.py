"""Weights: a model in its folder of safetensors, read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from foretrain.errors import RequestError
from foretrain.hashing import hash_data, hash_file
from foretrain.merging.networks import differences
from foretrain.modalities.base import modality_of
from foretrain.models.base import from_config
from foretrain.models.roles import Role, parameter_roles
from foretrain.run_directory import RunDirectory
from foretrain.tokens.tokenizer import TextTokenizer

FILE = "model.safetensors"
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of numbers, by the names that the format has for them."""


class Weights:
    """The numbers of a model in a folder that `transformers` saved, in one file or in shards.

    A tensor is in memory only while whoever read it holds it, so models may be larger than memory. Names are those of
    the network's parameters, tied ones once, and of the buffers that are saved with them.

    Attributes:
        name: what it is among the inputs (`base`).
        title: what messages call it.
        folder: where it lies.
        config: of its network.
        roles: what each parameter is for, and the block that it belongs to.
    """

    def __init__(self, name: str, folder: Path, title: str) -> None:
        self.name, self.folder, self.title = name, folder, title
        if not (folder / "config.json").is_file():
            raise RequestError(
                f"{title}: there is no model in {folder} (no config.json). Name a folder that `transformers` saved, "
                "the directory of a run that has ended, or `product:NAME` in a study."
            )
        self.config: PretrainedConfig = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            network = from_config(self.config)
        self.roles: dict[str, Role] = parameter_roles(network)
        tied: dict[int, list[str]] = {}
        for name, parameter in network.named_parameters(remove_duplicate=False):
            tied.setdefault(id(parameter), []).append(name)
        aliases = {names[0]: names for names in tied.values()}
        buffers = {name for name, _ in network.named_buffers()} & network.state_dict().keys()
        self._places = self._find({**aliases, **{name: [name] for name in sorted(buffers)}}, network.base_model_prefix)

    @property
    def names(self) -> list[str]:
        """Every tensor."""
        return list(self._places)

    @cached_property
    def floating(self) -> list[str]:
        """All but the buffers of whole numbers."""
        return [name for name in self.names if self.dtype(name).is_floating_point]

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        file, key = self._places[name]
        try:
            found: Tensor = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise RequestError(f"{self.title}: '{name}' in {self.folder} cannot be read: {error}.") from error
        return found

    def shape(self, name: str) -> list[int]:
        """Its shape, without reading it."""
        file, key = self._places[name]
        return list(file.get_slice(key).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """The type of its numbers, without reading it."""
        file, key = self._places[name]
        stored = str(file.get_slice(key).get_dtype())
        dtype = TYPES.get(stored)
        if dtype is None or (name in self.roles and not dtype.is_floating_point):
            raise RequestError(
                f"{self.title}: '{name}' in {self.folder} is stored as {stored}, which cannot be added up. Save the "
                "model in bf16 or fp32 first."
            )
        return dtype

    def block(self, name: str) -> int | None:
        """The block that a tensor belongs to; None outside of them."""
        return self.roles[name].block if name in self.roles else None

    @cached_property
    def blocks(self) -> int:
        """Number of blocks."""
        return 1 + max((role.block for role in self.roles.values() if role.block is not None), default=-1)

    @cached_property
    def hash(self) -> str:
        """Hash of the files that hold the weights."""
        return hash_data([hash_file(file) for file in _files(self.folder)])

    @cached_property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer that lies beside it, where such models have one."""
        return modality_of(self.config).load_tokenizer(self.folder)

    @cached_property
    def parameters(self) -> int:
        """How many numbers its parameters are."""
        return sum(prod(self.shape(name)) for name in self.roles)

    def plain(self) -> dict[str, Any]:
        """What it is, for files that say what something was made of."""
        return {"name": self.name, "path": str(self.folder.resolve()), "hash": self.hash, "parameters": self.parameters}

    def _find(self, wanted: Mapping[str, Sequence[str]], prefix: str) -> dict[str, tuple[Any, str]]:
        """Where each tensor is stored: an open file, and the key in it."""
        stored: dict[str, Any] = {}
        for path in _files(self.folder):
            try:
                file = safe_open(path, framework="pt")
                stored |= dict.fromkeys(file.keys(), file)
            except (SafetensorError, OSError) as error:
                raise RequestError(
                    f"{self.title}: the weights in {path} are damaged ({error}). Copy or download that file again."
                ) from error
        if not stored:
            raise RequestError(
                f"{self.title}: there are no safetensors in {self.folder}. Load the model with transformers where you "
                "trust it, and save it again with `save_pretrained`."
            )
        places, missing = {}, []
        for name, aliases in wanted.items():
            # Bodies are also saved without the name that they have inside a language model.
            keys = [*aliases, *(alias.removeprefix(f"{prefix}.") for alias in aliases)]
            key = next((key for key in keys if key in stored), None)
            if key is not None:
                places[name] = (stored[key], key)
            elif name in self.roles:
                missing.append(name)
        if missing:
            raise RequestError(
                f"{self.title}: the weights in {self.folder} lack {len(missing)} parameters of its network "
                f"({', '.join(missing[:3])}). Load it with transformers and save it again with `save_pretrained`."
            )
        return places


def open_weights(name: str, path: str | Path, base: Weights | None = None, title: str = "") -> Weights:
    """The weights of a model: in its folder, in the directory of a run, or (with `base`) as a LoRA adapter of PEFT.

    Args:
        name: the field that names it.
        path: where it lies.
        base: what an adapter would be added to.
        title: what messages call it; unset: by the field.

    Raises:
        RequestError: there is no model, or it cannot be read.
    """
    from foretrain.merging.adapters import AdaptedWeights, is_adapter

    given = Path(path)
    run = RunDirectory(given)
    folder = run.model_path if run.recipe_path.is_file() else given
    title = title or f"merge.{name}"
    if is_adapter(folder):
        if base is None:
            raise RequestError(
                f"{title}: {folder} is an adapter; it can be a tuned model, whose base says what it is added to."
            )
        return AdaptedWeights(name, folder, title, base)
    return Weights(name, folder, title)


def refuse_other_network(models: Sequence[Weights]) -> None:
    """See that the numbers of models have one meaning: one network, and one tokenizer.

    Raises:
        RequestError: those of two models have not.
    """
    first = models[0]
    for other in models[1:]:
        differ = differences({}, other.config, {}, first.config) or differences(
            _shapes(other), other.config, _shapes(first), first.config
        )
        if differ:
            raise RequestError(
                f"{other.title} ({other.folder}) and {first.title} ({first.folder}) are not the same network "
                f"({'; '.join(differ[:3])}); name models that were trained from the same weights."
            )
        if (other.tokenizer and other.tokenizer.hash) != (first.tokenizer and first.tokenizer.hash):
            raise RequestError(
                f"The tokenizers of {other.title} ({other.folder}) and {first.title} ({first.folder}) differ, so a row "
                "of the embedding stands for two texts. Train all of them with one tokenizer (a pretrained one, or the "
                "same corpus and settings)."
            )


def _shapes(weights: Weights) -> dict[str, Tensor]:
    """Tensors of the right shapes, of which none is read."""
    return {name: torch.empty(weights.shape(name), device="meta") for name in weights.names}


def _files(folder: Path) -> list[Path]:
    """The files that hold a model: those that its index names, where it has one."""
    index = folder / f"{FILE}.index.json"
    if index.is_file():
        try:
            named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, TypeError) as error:
            raise RequestError(f"{index} is damaged ({error!r}). Copy or download that file again.") from error
        lost = [name for name in named if not (folder / name).is_file()]
        if lost:
            raise RequestError(f"{folder} lacks {', '.join(lost[:3])}, which {index.name} names. Download it again.")
        return [folder / name for name in named]
    return sorted(folder.glob("*.safetensors"))


def stream(names: Sequence[str], models: Sequence[Weights]) -> Iterator[tuple[str, list[Tensor]]]:
    """Each tensor of several models at a time, in float64."""
    for name in names:
        yield name, [model.read(name).double() for model in models]
