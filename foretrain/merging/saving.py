"""Saving: weights written as a folder that `transformers` loads, one tensor in memory at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretrain.files import write_json, written_folder
from foretrain.merging.weights import FILE, TYPES, Weights

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".gguf", ".index.json")
"""Endings of what a written folder does not take over from the one that it is made like."""
_NAMES = {dtype: name for name, dtype in TYPES.items()}


def write_weights(
    folder: Path, like: Weights, tensor: Callable[[str], Tensor], told: Mapping[str, Any], card: str
) -> Path:
    """Write a model as a folder that plain `transformers` loads: one tensor in memory at a time.

    Everything but the weights (config, tokenizer) is taken over from `like`, and so is the type of each number;
    `merge.json` says what it was made of. The folder appears by one rename.

    Raises:
        RunError: the disk is full, or the folder cannot be written; what was there before is intact.
    """
    with written_folder(folder, "The model") as made:
        for file in sorted(like.folder.iterdir()):
            if file.is_file() and not file.name.endswith(_WEIGHTS) and file.name not in ("README.md", "merge.json"):
                shutil.copyfile(file, made / file.name)
        _write_file(made / FILE, like, tensor)
        write_json(made / "merge.json", dict(told))
        (made / "README.md").write_text(card, encoding="utf-8")
    return folder


def _write_file(path: Path, like: Weights, tensor: Callable[[str], Tensor]) -> None:
    """One file of safetensors, in which sizes stand first; the library itself writes only what is whole in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in like.names:
        dtype, shape = like.dtype(name), like.shape(name)
        size = dtype.itemsize * prod(shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in like.names:
            numbers = tensor(name).to(like.dtype(name)).contiguous()
            file.write(numbers.flatten().view(torch.uint8).numpy().data if numbers.numel() else b"")
        file.flush()
        os.fsync(file.fileno())
