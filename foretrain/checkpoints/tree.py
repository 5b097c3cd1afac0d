"""Trees of state as JSON plus named tensors, without loss.

A tree is made of dicts, lists, tuples, tensors, numpy arrays and scalars, ints, floats, strings, bytes, booleans and
None. Strings, booleans, None, ints and finite floats are themselves in JSON (Python writes floats so that they read
back bit for bit), and so are lists and dicts with plain string keys. All else is a dict with one key that begins with
`!`, such as `{"!tuple": [...]}` or `{"!tensor": "model/head.weight"}`.
"""

from __future__ import annotations

import base64
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foretrain.checkpoints.tensors import DTYPES


def encode(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """A tree as JSON-able data and tensors by name (their path in the tree, in the tree's order).

    Nothing is copied but numpy arrays: the tensors are the tree's own. One that occurs several times (tied weights)
    is named once.

    Raises:
        TypeError: something in the tree is of another type; the message gives its path.
    """
    encoder = _Encoder()
    return encoder.encode(tree, ""), encoder.tensors


def decode(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `encode` took apart; what was one tensor in several places is one again.

    Raises:
        KeyError: a tensor is missing, or a tag is of a later version.
        ValueError: a value doesn't fit its tag.
    """
    if isinstance(structure, list):
        return [decode(item, tensors) for item in structure]
    if not isinstance(structure, dict):
        return structure
    if len(structure) == 1:
        tag, value = next(iter(structure.items()))
        if tag.startswith("!"):
            return _DECODE[tag](value, tensors)
    return {key: decode(item, tensors) for key, item in structure.items()}


def names_in(structure: Any) -> set[str]:
    """Names of the tensors that a structure refers to."""
    if isinstance(structure, list):
        return set().union(*map(names_in, structure))
    if not isinstance(structure, dict):
        return set()
    if len(structure) == 1:
        tag, value = next(iter(structure.items()))
        if tag in _BY_NAME:
            return {value}
    return set().union(*map(names_in, structure.values()))


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._seen: dict[tuple[Any, ...], str] = {}

    def encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            # The bits of a NaN are kept too.
            return value if math.isfinite(value) else {"!float": struct.pack(">d", value).hex()}
        if kind in (dict, OrderedDict):
            if all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("!")):
                return {key: self.encode(item, _join(path, key)) for key, item in value.items()}
            pairs = [[self._key(key, path), self.encode(item, _join(path, str(key)))] for key, item in value.items()]
            return {"!dict": pairs}
        if kind in (list, tuple):
            items = [self.encode(item, _join(path, str(number))) for number, item in enumerate(value)]
            return items if kind is list else {"!tuple": items}
        if kind is bytes:
            return {"!bytes": base64.b64encode(value).decode()}
        if isinstance(value, Tensor):
            return {"!tensor": self._name(value, path)}
        if kind is np.ndarray or isinstance(value, np.generic):
            return {"!array" if kind is np.ndarray else "!scalar": self._name(_from_numpy(value, path), path)}
        raise TypeError(
            f"state at '{path}' is of type {kind.__name__}; "
            "a checkpoint holds dicts, lists, tuples, tensors, arrays and plain values"
        )

    def _key(self, key: Any, path: str) -> Any:
        if isinstance(key, Tensor | np.ndarray):
            raise TypeError(f"state at '{path}' has a key of type {type(key).__name__}")
        return self.encode(key, path)

    def _name(self, tensor: Tensor, path: str) -> str:
        tensor = tensor.detach()
        if (
            type(tensor) is not Tensor
            or tensor.layout is not torch.strided
            or tensor.is_meta
            or tensor.dtype not in DTYPES
        ):
            what = f"{type(tensor).__name__} ({tensor.dtype}, {tensor.layout}, {tensor.device})"
            raise TypeError(
                f"state at '{path}' is a {what}; a checkpoint holds plain dense tensors (gather sharded ones first)"
            )
        same = (
            tensor.device,
            tensor.data_ptr(),
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
            tensor.is_conj(),
            tensor.is_neg(),
        )
        if tensor.numel() and same in self._seen:
            return self._seen[same]
        stem = name = path.encode("utf-8", "backslashreplace").decode() or "tensor"
        number = 1
        # "__metadata__" is what safetensors calls something else.
        while name in self.tensors or name == "__metadata__":
            number += 1
            name = f"{stem}#{number}"
        self.tensors[name] = tensor
        self._seen[same] = name
        return name


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _from_numpy(value: Any, path: str) -> Tensor:
    # A copy of its own: an array's memory may be read-only, reversed or big-endian, and a scalar has none.
    array = np.array(value, dtype=np.asarray(value).dtype.newbyteorder("="), order="C", copy=True)
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise TypeError(
            f"state at '{path}' is a numpy array of type {array.dtype}, which torch doesn't have"
        ) from error


_DECODE: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "!float": lambda value, tensors: struct.unpack(">d", bytes.fromhex(value))[0],
    "!dict": lambda value, tensors: {decode(key, tensors): decode(item, tensors) for key, item in value},
    "!tuple": lambda value, tensors: tuple(decode(item, tensors) for item in value),
    "!bytes": lambda value, tensors: base64.b64decode(value),
    "!tensor": lambda value, tensors: tensors[value],
    "!array": lambda value, tensors: tensors[value].numpy(),
    "!scalar": lambda value, tensors: tensors[value].numpy()[()],
}
_BY_NAME = ("!tensor", "!array", "!scalar")
