"""Texts from the fields of an item: a field's name, or a template with fields in braces."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

from foretrain.errors import RequestError, unknown_name


def is_template(wording: str) -> bool:
    """Whether it holds braces (`Question: {question}`) and so isn't just a field's name."""
    return "{" in wording or "}" in wording


def check_template(wording: str) -> str:
    """A template with whole braces, as it is; for validators.

    Raises:
        ValueError: a brace is missing its other half, or a pair of braces names no field.
    """
    try:
        pieces = list(Formatter().parse(wording))
    except ValueError as error:
        raise ValueError(
            f"braces should enclose the name of a field ('{{{{' and '}}}}' stand for braces): {error}"
        ) from error
    for _, name, form, conversion in pieces:
        if name is not None and (not name or form or conversion):
            raise ValueError(f"braces should enclose just the name of a field, such as {{question}}, in {wording!r}")
    return wording


def fill(template: str, fields: Mapping[str, Any], place: object) -> str:
    """A template with every `{field}` replaced by that field's text; without braces it is taken literally."""
    pieces = []
    for literal, name, _, _ in Formatter().parse(template):
        pieces += [literal, "" if name is None else as_text(look_up(fields, name, place), name, place)]
    return "".join(pieces)


def wording_of(wording: str, fields: Mapping[str, Any], place: object) -> str:
    """The text that a recipe's `FIELD` or template stands for in one item.

    Raises:
        RequestError: there is no such field, or it holds no text; says where.
    """
    if is_template(wording):
        return fill(wording, fields, place)
    return as_text(look_up(fields, wording, place), wording, place)


def look_up(fields: Mapping[str, Any], name: str, place: object) -> Any:
    """The value of a field; `a.b` reaches into nested objects unless a field has that very name.

    Raises:
        RequestError: there is no such field; names the nearest one.
    """
    if name in fields:
        return fields[name]
    value: Any = fields
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise RequestError(f"{place}: {unknown_name('field', name, fields)}")
        value = value[key]
    return value


def as_text(value: Any, name: str, place: object) -> str:
    """Text as it is, a number as it is written; anything else is an error that says where."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise RequestError(
        f"{place}: the field '{name}' should hold text or a number, but holds "
        f"{'nothing' if value is None else f'a {type(value).__name__}'}."
    )
