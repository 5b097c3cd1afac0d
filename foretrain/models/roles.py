"""Roles of parameters: the one answer to "what is a matrix", "which are the last k blocks", whatever wraps them later."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch

RoleKind = Literal["embedding", "head", "matrix", "norm", "bias", "other"]
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|layer|blocks)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Role:
    """What a parameter is for: its kind, the block it belongs to (None outside the blocks), its original module path."""

    kind: RoleKind
    block: int | None
    path: str


def parameter_roles(model: torch.nn.Module) -> dict[str, Role]:
    """The role of every parameter, by name, read off the modules that own them.

    A weight tied to the input embedding is listed once, as `embedding`. Matrices are weights of two or more
    dimensions inside linear-like modules; one-dimensional weights are `norm`, biases `bias`.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    owners = {id(parameter): module for module in model.modules() for parameter in module.parameters(recurse=False)}
    roles: dict[str, Role] = {}
    for name, parameter in model.named_parameters():
        owner = owners[id(parameter)]
        path, _, leaf = name.rpartition(".")
        found = _BLOCK.search(name)
        block = int(found[1]) if found else None
        kind: RoleKind
        if isinstance(owner, torch.nn.Embedding):
            kind = "embedding"
        elif head is not None and owner is head and leaf == "weight":
            kind = "head"
        elif leaf.endswith("bias"):
            kind = "bias"
        elif parameter.ndim >= 2:
            kind = "matrix"
        elif parameter.ndim == 1:
            kind = "norm"
        else:
            kind = "other"
        roles[name] = Role(kind, block, path)
    return roles
