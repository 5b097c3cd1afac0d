"""Roles of parameters: the one answer to "what is a matrix" and "which are the last k blocks", whatever wraps them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from foretrain.errors import RequestError, unknown_name

RoleKind = Literal["embedding", "head", "matrix", "norm", "bias", "other"]
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|layer|blocks)\.(\d+)\.")
_LOOSE = ("position_embeddings", "cls_token", "mask_token", "register_tokens", "distillation_token")
"""Embeddings that vision models hold as plain parameters."""
# What DistributedDataParallel and torch.compile put in front of, or into, a module's path.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")


@dataclass(frozen=True, slots=True)
class Role:
    """What a parameter is for.

    Attributes:
        kind: `embedding` (rows by id or position, or a token that a model adds, such as the class token of a vision
            model), `head` (an output layer of its own), `matrix` (any other weight of two or more dimensions),
            `norm` (a scale per feature), `bias`, `other` (scalars).
        block: number of the block it belongs to; None outside the blocks.
        path: path of the module that owns it, in the plain model.
        tied: an embedding that is the output layer too.
        entries: numbers of a matrix that do not form one themselves (the entries of a sparse one).
    """

    kind: RoleKind
    block: int | None
    path: str
    tied: bool = False
    entries: bool = False


def stand_in(layer: nn.Module, entries: Sequence[str] = ()) -> nn.Module:
    """Mark a module that stands in the place of a linear layer: whatever it is made of has that layer's path.

    Args:
        layer: the module; returned.
        entries: names in it of parameters that are entries of a matrix.
    """
    layer._stands_in_with_entries = tuple(entries)  # type: ignore[assignment]
    return layer


def parameter_roles(model: nn.Module) -> dict[str, Role]:
    """The role of every parameter, by name, read off the modules that own them.

    A weight tied to the input embedding is listed once, as an `embedding` that is `tied`.
    """
    head = output_layer(model)
    owners: dict[int, nn.Module] = {}
    standing: dict[int, tuple[str, bool]] = {}
    for place, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), module)
        entries = getattr(module, "_stands_in_with_entries", None)
        if entries is not None:
            for leaf, parameter in module.named_parameters():
                standing.setdefault(id(parameter), (_WRAPPERS.sub("", place), leaf in entries))
    roles: dict[str, Role] = {}
    for name, parameter in model.named_parameters():
        owner = owners[id(parameter)]
        plain = _WRAPPERS.sub("", name)
        path, _, leaf = plain.rpartition(".")
        path, entries = standing.get(id(parameter), (path, False))
        found = _BLOCK.search(plain)
        kind: RoleKind
        if isinstance(owner, nn.Embedding) or leaf in _LOOSE:
            kind = "embedding"
        elif owner is head and leaf == "weight":
            kind = "head"
        elif leaf == "bias" or leaf.endswith("_bias"):
            kind = "bias"
        elif parameter.ndim >= 2 or entries:
            kind = "matrix"
        else:
            kind = "norm" if parameter.ndim == 1 else "other"
        tied = kind == "embedding" and head is not None and getattr(head, "weight", None) is parameter
        roles[name] = Role(kind, int(found[1]) if found else None, path, tied, entries)
    return roles


def output_layer(model: nn.Module) -> nn.Module | None:
    """The layer that turns hidden states into logits, also where the model is wrapped; None where there is none."""
    for module in model.modules():
        get = getattr(module, "get_output_embeddings", None)
        layer = get() if callable(get) else None
        if isinstance(layer, nn.Module):
            return layer
    return None


def blocks(roles: Mapping[str, Role]) -> int:
    """Number of blocks."""
    return 1 + max((role.block for role in roles.values() if role.block is not None), default=-1)


def select(roles: Mapping[str, Role], subset: str) -> list[str]:
    """Names of the parameters in a subset, in the order of `roles`.

    Args:
        roles: of the model's parameters.
        subset: `all`; `first:K` or `last:K` (blocks); `embeddings`; `head` (the output layer, or the embedding tied to
            it); `matrices`, `norms`, `biases`; `re:PATTERN` (a regular expression found in the name); or several of
            these joined by `+`, such as `last:2+head`.

    Raises:
        RequestError: the subset isn't one of these, or holds no parameter of this model.
    """
    tests = [_test(term.strip(), roles) for term in _terms(subset)]
    names = [name for name, role in roles.items() if any(test(name, role) for test in tests)]
    if not names:
        raise RequestError(f"parameters: the subset '{subset}' holds none of this model's parameters.")
    return names


def _terms(subset: str) -> list[str]:
    # A regular expression may hold a plus sign of its own, so it reaches to the end.
    plain, mark, pattern = subset.partition("re:")
    terms = [term for term in plain.split("+") if term.strip()]
    return [*terms, mark + pattern] if mark else terms or [subset]


_NAMED: dict[str, Callable[[str, Role], bool]] = {
    "all": lambda name, role: True,
    "embeddings": lambda name, role: role.kind == "embedding",
    "head": lambda name, role: role.kind == "head" or role.tied,
    "matrices": lambda name, role: role.kind == "matrix",
    "norms": lambda name, role: role.kind == "norm",
    "biases": lambda name, role: role.kind == "bias",
}


def _test(term: str, roles: Mapping[str, Role]) -> Callable[[str, Role], bool]:
    if term in _NAMED:
        return _NAMED[term]
    word, colon, rest = term.partition(":")
    if word == "re" and colon:
        try:
            pattern = re.compile(rest)
        except re.error as error:
            raise RequestError(f"parameters: '{rest}' is not a regular expression ({error}).") from error
        return lambda name, role: pattern.search(name) is not None
    if word in ("first", "last") and colon:
        total = blocks(roles)
        if not rest.isdigit() or not 1 <= int(rest) <= total:
            raise RequestError(f"parameters: '{term}' should name 1 to {total} blocks of this model, such as {word}:1.")
        count = int(rest)
        chosen = range(count) if word == "first" else range(total - count, total)
        return lambda name, role: role.block in chosen
    valid = [*_NAMED, "first:K", "last:K", "re:PATTERN"]
    raise RequestError("parameters: " + unknown_name("subset", term, valid))
