"""Overrides: plain data of a recipe with some of its keys changed, one by one or many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretrain.errors import RequestError
from foretrain.plain_yaml import parse_yaml


def with_override(data: dict[str, Any], override: str) -> dict[str, Any]:
    """`data` with one `a.b=c` applied: `c` is read as YAML; numbers select items of lists; `a.b=null` unsets.

    Setting a unit of `budget` replaces the unit that was there; setting `kind` keeps no field of the former kind.
    """
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise RequestError(f"--set {override}: should be a key and a value, such as optimizer.lr=1e-3.")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise RequestError(f"--set {override}: the value is not valid YAML ({error}).") from error
    return _set_key(data, path.strip().split("."), value, f"--set {override}")


def with_changes(data: dict[str, Any], changes: Mapping[str, Any], source: str = "changes") -> dict[str, Any]:
    """`data` with changes applied key by key: `{optimizer.lr: 1e-3}` or `{optimizer: {lr: 1e-3}}`.

    A mapping changes what it names and leaves the rest; one with another `kind` than before replaces all of it. Null
    unsets. `source` names the changes in errors.
    """
    for key, value in _by_kind_first(changes):
        data = _merged(data, key.split("."), value, f"{source}: {key}")
    return data


def _merged(data: dict[str, Any], keys: list[str], value: Any, where: str) -> dict[str, Any]:
    # A budget is one unit, so a new one leaves nothing of the former.
    if not isinstance(value, Mapping) or not value or keys == ["budget"]:
        return _set_key(data, keys, value, where)
    for key, child in _by_kind_first(value):
        data = _merged(data, [*keys, key], child, where)
    return data


def _by_kind_first(changes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(((str(key), value) for key, value in changes.items()), key=lambda item: item[0] != "kind")


def _set_key(data: dict[str, Any], keys: list[str], value: Any, where: str) -> dict[str, Any]:
    # A bare text stands for a mapping with one key: `path` for a domain or a named model, `kind` elsewhere.
    changed: dict[str, Any] = _set(data, keys, value, where)
    return changed


def _set(node: Any, keys: list[str], value: Any, where: str, above: tuple[str, ...] = ()) -> Any:
    key, rest = keys[0], keys[1:]
    bare = "path" if len(above) == 2 and above[0] in ("corpus", "models") else "kind"
    if isinstance(node, list) and (bare == "kind" or key.isdigit()):
        if not key.isdigit() or int(key) >= len(node):
            items = f"from 0 to {len(node) - 1}" if node else "but the list is empty"
            raise RequestError(f"{where}: '{key}' should be the number of an item, {items}.")
        changed = _set(node[int(key)], rest, value, where, (*above, key)) if rest else value
        return [*node[: int(key)], changed, *node[int(key) + 1 :]]
    if isinstance(node, str | list):
        node = {bare: node}
    elif not isinstance(node, dict):
        node = {}
    if len(rest) == 1 and key == "budget":
        return {**node, key: {rest[0]: value}}
    if rest:
        return {**node, key: _set(node.get(key), rest, value, where, (*above, key))}
    if key == "kind" and node.get("kind") not in (None, value):
        return {"kind": value}
    return {**node, key: value}
