"""The recipe as a report shows it: complete, with the settings marked that somebody chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from foretrain.errors import ForetrainError
from foretrain.run_directory import RunDirectory


def recipe_lines(run: RunDirectory) -> list[tuple[str, bool]]:
    """The lines of `recipe.yaml`, each with whether its setting differs from the default."""
    if not run.recipe_path.is_file():
        return []
    text = run.recipe_path.read_text(encoding="utf-8")
    try:
        chosen = chosen_settings(run.load_recipe())
    except ForetrainError:
        # A plug-in that is gone, a recipe of an older version: shown without marks.
        chosen = set()
    marked = {line for path, line in _key_lines(yaml.compose(text)) if path in chosen}
    return [(line, number in marked) for number, line in enumerate(text.rstrip().split("\n"))]


def chosen_settings(section: BaseModel, prefix: str = "", usual: Any = None) -> set[str]:
    """Dotted keys of the settings in a recipe (or a section of one) that differ from their defaults."""
    chosen: set[str] = set()
    for name, field in type(section).model_fields.items():
        value, path = getattr(section, name), f"{prefix}{name}"
        default = field.get_default(call_default_factory=True)
        if name == "kind" and usual is not None:
            default = usual
        children: Sequence[tuple[str, Any]] = []
        if isinstance(value, BaseModel):
            children = [(path, value)]
        elif isinstance(value, Mapping) and any(isinstance(child, BaseModel) for child in value.values()):
            children = [(f"{path}.{key}", child) for key, child in value.items()]
        elif isinstance(value, list) and any(isinstance(child, BaseModel) for child in value):
            children = [(f"{path}.{number}", child) for number, child in enumerate(value)]
        elif field.is_required() or value != default:
            chosen.add(path)
        for where, child in children:
            # A part in a list or a dict was put there by somebody; one in a field may be the usual one.
            kind = "" if where != path else default.get("kind") if isinstance(default, Mapping) else _kind(default)
            chosen |= chosen_settings(child, f"{where}.", kind)
    return chosen


def _kind(default: Any) -> str:
    return str(getattr(default, "kind", ""))


def _key_lines(node: yaml.Node | None, prefix: str = "") -> list[tuple[str, int]]:
    """Every dotted key of a YAML document with the number of its line, from 0."""
    found: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}.{key.value}" if prefix else str(key.value)
            found += [(path, key.start_mark.line), *_key_lines(value, path)]
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            found += [(f"{prefix}.{number}", value.start_mark.line), *_key_lines(value, f"{prefix}.{number}")]
    return found
