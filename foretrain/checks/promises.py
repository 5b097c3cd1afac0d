"""Promises of every part: what its class says of itself, and that it is plain, frozen data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from foretrain.parts import Part


def need(kept: bool, promise: str) -> None:
    """Raise an `AssertionError` unless a promise is kept (an `assert` would vanish under `python -O`)."""
    if not kept:
        raise AssertionError(promise)


def title(part: Part) -> str:
    """A part as messages name it."""
    return f"{part.axis} '{part.kind}'"


def equal(a: Any, b: Any) -> bool:
    """Whether two trees are equal, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def check_class(part: type[Part]) -> None:
    """What a part's class says of itself: documentation, facts, frozen fields."""
    name = f"{part.axis} '{part.name()}'"
    need(part.axis != "" and part.concrete(), f"{part.__name__} needs `kind: Literal[...] = ...` and a family")
    need(bool(vars(part).get("__doc__")), f"{name} needs a docstring of its own")
    silent = [field for field, info in part.model_fields.items() if field != "kind" and not info.description]
    need(not silent, f"{name}: fields without a docstring below them: {', '.join(silent)}")
    facts = part.facts
    need(bool(facts.answers or facts.paper), f"{name}: its facts say which question it answers, or its paper")
    need(
        not facts.arxiv or re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+/\d{7}", facts.arxiv) is not None,
        f"{name}: facts.arxiv '{facts.arxiv}' is no arXiv id such as 1706.03762",
    )
    need(set(facts.needs) <= {"batch_losses"}, f"{name}: facts.needs {facts.needs} holds something unknown")
    need(part.model_config.get("frozen") is True, f"{name}: its fields must be frozen")
    need(part.model_config.get("extra") == "forbid", f"{name}: unknown keys must be refused")
    odd = set(part.neutral or {}) - set(part.model_fields)
    need(not odd, f"{name}: `neutral` names fields it does not have: {', '.join(odd)}")


def check_data(part: Part) -> None:
    """A part as data: equal after a round trip, frozen, and copied without sharing its state."""
    name, kind = title(part), type(part)
    data = part.model_dump(mode="json")
    again = kind.model_validate(json.loads(json.dumps(data)))
    need(again == part, f"{name} is not the same after a round trip through plain data")
    need(again.model_dump(mode="json") == data, f"{name} writes other data after a round trip")
    try:
        part.__setattr__("kind", part.kind)
        need(False, f"{name}: a field could be set; fields are frozen")
    except ValidationError:
        pass
    copied = part.model_copy(deep=True)
    need(copied == part, f"{name}: a deep copy is not equal")
    own, other = part.__pydantic_private__ or {}, copied.__pydantic_private__ or {}
    shared = [key for key, value in own.items() if _mutable(value) and other.get(key) is value]
    need(not shared, f"{name}: deep copies share {', '.join(shared)}")


def _mutable(value: Any) -> bool:
    return isinstance(value, list | dict | set | Tensor | np.ndarray)
