"""Tensor memory: the largest number of bytes that tensors take at once during a training step, counted exactly.

The resident memory of a process tells of everything that ran in it before. This counts storages instead: those that a
trainer holds, and those that come and go while its step runs. The figure is the same in every process, for every step
of one kind, and whatever else lives in memory, so that methods can be compared by it.

What a first step leaves behind (the state of an optimizer, buffers of a method) is there from the start of every later
one. It counts as if it had been there from the start of the first one too; a step that is counted later gives the same.

What a single operation allocates and frees inside itself is not seen, nor what is no tensor.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

T = TypeVar("T")
_NOTHING_INSIDE = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    np.ndarray,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    MethodType,
)
"""What the search for tensors does not look into. Functions are in it: what they close over is shared with others."""


def measured(function: Callable[[], T], *owners: Any) -> tuple[T, int]:
    """Run a training step and count the peak of its tensor memory; no number that is computed changes.

    Args:
        function: one step.
        owners: objects that hold what lives on between steps: model, optimizer, parts.

    Returns:
        Its result, and bytes: everything that lives on plus the most that comes and goes at once.
    """
    ledger = _Ledger(owners)
    # What hangs in reference cycles would be freed at a moment that depends on the rest of the process.
    with _no_collection(), ledger:
        result = function()
    return result, ledger.peak(owners)


@dataclass(slots=True)
class _Entry:
    """One storage in the ledger."""

    size: int
    alive: bool = True
    gradient: bool = False


class _Ledger(TorchDispatchMode):
    """Writes down when storages appear, change their size and are freed."""

    supports_higher_order_operators = True

    def __init__(self, owners: Iterable[Any]) -> None:
        super().__init__()
        self._entries: dict[int, tuple[_Entry, weakref.ref[Any]]] = {}  # of living storages, by address
        self._held: list[_Entry] = []
        self._made: list[_Entry] = []
        self._events: list[tuple[_Entry, int]] = []
        for tensor, gradient in _tensors(owners):
            for storage in _storages(tensor):
                entry = self._find(storage) or self._enter(storage)
                entry.gradient |= gradient
        self._held, self._made = self._made, []
        self._start = sum(entry.size for entry in self._held)
        self._events.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        # Arguments too: a tensor over an array of numpy is made without an operation.
        for tensor in _listed((args, tuple(kwargs.values()), out)):
            for storage in _storages(tensor):
                entry = self._find(storage)
                if entry is None:
                    self._enter(storage)
                elif entry.size != storage.nbytes():
                    self._events.append((entry, storage.nbytes() - entry.size))
                    entry.size = storage.nbytes()
        return out

    def _find(self, storage: Any) -> _Entry | None:
        found = self._entries.get(storage._cdata)
        return None if found is None else found[0]

    def _enter(self, storage: Any) -> _Entry:
        entry, address = _Entry(storage.nbytes()), storage._cdata

        def freed(_: Any) -> None:
            del self._entries[address]
            entry.alive = False
            self._events.append((entry, -entry.size))

        # A reference keeps its object alive, but the storage's own object outlives the tensors that share it.
        self._entries[address] = entry, weakref.ref(storage, freed)
        self._made.append(entry)
        self._events.append((entry, entry.size))
        return entry

    def peak(self, owners: Iterable[Any]) -> int:
        """The most bytes at once, after the step."""
        for tensor, gradient in _tensors(owners):
            for storage in _storages(tensor):
                entry = self._find(storage)
                if entry is not None and gradient:
                    entry.gradient = True
        lasting = self._lasting()
        live = most = self._start + sum(entry.size for entry in lasting)
        counted = {id(entry) for entry in lasting}
        for entry, change in self._events:
            if id(entry) not in counted:
                live += change
                most = max(most, live)
        self._entries.clear()
        return most

    def _lasting(self) -> list[_Entry]:
        """What the step made and left, and did not put in the place of something of its size that went.

        Gradients are no such thing: each step frees the old ones first.
        """
        gone = Counter(entry.size for entry in self._held if not entry.alive and not entry.gradient)
        left: list[_Entry] = []
        for entry in self._made:
            if not entry.alive or entry.gradient:
                continue
            if gone[entry.size]:
                gone[entry.size] -= 1
            else:
                left.append(entry)
        return left


def _listed(value: Any) -> Iterator[Tensor]:
    """The tensors among the arguments or results of an operation."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _listed(item)


def _storages(tensor: Tensor) -> Iterator[Any]:
    """The storages behind a tensor: one, or those of the tensors that a wrapper holds."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        for inner in (getattr(tensor, name) for name in names):
            if isinstance(inner, Tensor):
                yield from _storages(inner)
    elif tensor.layout == torch.strided and tensor.device.type != "meta":
        yield tensor.untyped_storage()


def _tensors(owners: Iterable[Any]) -> Iterator[tuple[Tensor, bool]]:
    """Every tensor that is found in objects, however deep, and whether it is a gradient."""
    waiting, seen = deque(owners), dict[int, Any]()
    while waiting:
        thing = waiting.popleft()
        if isinstance(thing, _NOTHING_INSIDE) or id(thing) in seen:
            continue
        seen[id(thing)] = thing  # kept, so that no other object gets its number
        if isinstance(thing, Tensor):
            yield thing, False
            if thing.is_leaf and thing.grad is not None:
                yield thing.grad, True
        elif isinstance(thing, dict):
            waiting.extend(thing.values())
        elif isinstance(thing, list | tuple | set | frozenset | deque):
            waiting.extend(thing)
        else:
            waiting.extend(_attributes(thing))


def _attributes(thing: Any) -> Iterator[Any]:
    yield from getattr(thing, "__dict__", {}).values()
    yield getattr(thing, "__pydantic_private__", None)
    for owner in type(thing).__mro__:
        names = owner.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name.startswith("__"):
                continue
            yield getattr(thing, name, None)


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection inside, and one of what was made inside at the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.collect(0)
        if enabled:
            gc.enable()
