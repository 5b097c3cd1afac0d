"""Adapters: the weights of a model that a LoRA adapter of PEFT makes of its base."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import hash_data, hash_file
from foretrain.merging.weights import Weights
from foretrain.tokens.tokenizer import TextTokenizer

SETTINGS, FILE = "adapter_config.json", "adapter_model.safetensors"
_BEFORE = "base_model.model."
"""What PEFT puts in front of a module's path."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, and no model."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


class AdaptedWeights(Weights):
    """A base and an adapter as the model that they are: W + s B A, where a module has such factors.

    What is added to a matrix is the product: whoever scales a difference of weights scales it once, and not both
    factors.

    Attributes:
        base: what the adapter is added to.
    """

    def __init__(self, name: str, folder: Path, title: str, base: Weights) -> None:
        # No config of its own: everything but the products is the base's.
        self.name, self.folder, self.title, self.base = name, folder, title, base
        self.config, self.roles, self._places = base.config, base.roles, base._places
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            self._file = safe_open(folder / FILE, framework="pt")
        except (ValueError, OSError, SafetensorError) as error:
            raise RequestError(
                f"{title}: the adapter in {folder} cannot be read ({error}). It should have {SETTINGS} and {FILE}, as "
                "PEFT saves them."
            ) from error
        self._scale = self._scaling(settings)
        self._turned = bool(settings.get("fan_in_fan_out"))
        self._factors = self._match(list(self._file.keys()))

    def read(self, name: str) -> Tensor:
        weight = self.base.read(name)
        if name not in self._factors:
            return weight
        a, b = (self._file.get_tensor(key).double() for key in self._factors[name])
        product = self._scale * (b @ a)
        return weight.double() + (product.T if self._turned else product)

    def dtype(self, name: str) -> torch.dtype:
        return self.base.dtype(name)

    @cached_property
    def hash(self) -> str:
        """Hash of base and adapter."""
        return hash_data([self.base.hash, hash_file(self.folder / FILE), hash_file(self.folder / SETTINGS)])

    @cached_property
    def tokenizer(self) -> TextTokenizer | None:
        """The base's."""
        return self.base.tokenizer

    def _scaling(self, settings: dict[str, Any]) -> float:
        kind = settings.get("peft_type")
        beyond = [
            name
            for name in ("use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "layer_replication")
            if settings.get(name)
        ]
        beyond += ["bias"] if settings.get("bias", "none") != "none" else []
        if kind != "LORA" or beyond:
            what = f"is of type {kind}" if kind != "LORA" else f"uses {', '.join(beyond)}"
            raise RequestError(
                f"{self.title}: the adapter in {self.folder} {what}, which is not read here. Merge it into its "
                "base with PEFT (`merge_and_unload`) and name the folder of that model."
            )
        try:
            rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        except (LookupError, TypeError, ValueError) as error:
            raise RequestError(
                f"{self.title}: {SETTINGS} in {self.folder} names no rank and scale ({error!r})."
            ) from error
        return alpha / (rank**0.5 if settings.get("use_rslora") else rank)

    def _match(self, keys: list[str]) -> dict[str, tuple[str, str]]:
        """The keys of both factors, by the name of the weight that their product is added to."""
        factors: dict[str, tuple[str, str]] = {}
        for key in keys:
            module, mark, which = key.removeprefix(_BEFORE).partition(".lora_")
            if not mark or which not in ("A.weight", "B.weight"):
                raise RequestError(
                    f"{self.title}: '{key}' of the adapter in {self.folder} is no factor of a matrix (lora_A, lora_B). "
                    "Merge it into its base with PEFT (`merge_and_unload`) and name the folder of that model."
                )
            name, pair = f"{module}.weight", tuple(f"{_BEFORE}{module}.lora_{factor}.weight" for factor in "AB")
            if name not in self.roles:
                raise RequestError(
                    f"{self.title}: the adapter in {self.folder} does not fit {self.base.title} ({self.base.folder}): "
                    f"{unknown_name('weight', name, self.roles)}"
                )
            if not set(pair) <= set(keys):
                raise RequestError(f"{self.title}: the adapter in {self.folder} has one factor of '{module}' only.")
            a, b = (list(self._file.get_slice(each).get_shape()) for each in pair)
            shape = [a[1], b[0]] if self._turned else [b[0], a[1]]
            if a[0] != b[1] or shape != self.base.shape(name):
                raise RequestError(
                    f"{self.title}: the adapter in {self.folder} does not fit {self.base.title} ({self.base.folder}): "
                    f"its factors of '{module}' make {shape}, and the weight is {self.base.shape(name)}."
                )
            factors[name] = (pair[0], pair[1])
        return factors
