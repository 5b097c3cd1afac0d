"""Spans: lengths of a run, given as a share of it (`0.25`, `1.0`) or as a number of steps (`500`, `1`)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from foretrain.section import WRITTEN, parse_number

_RULE = "a share of the run up to 1.0, or a whole number of steps"


def parse_span(value: Any) -> Any:
    """A share as a float, steps as an int: `1.0` is the whole run, and `1`, `4K` and `2e3` are steps.

    Raises:
        PydanticCustomError: more than the whole run, and no whole number of steps.
    """
    number = parse_number(value)
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    if not isinstance(number, float):
        raise PydanticCustomError("span", "should be a number: {rule}", {"rule": _RULE})
    if number.is_integer() and (number > 1 or (isinstance(value, str) and "." not in value)):
        return int(number)
    if number > 1:
        raise PydanticCustomError("span", "should be {rule}", {"rule": _RULE})
    return number


Span = Annotated[int | float, BeforeValidator(parse_span, json_schema_input_type=int | float | WRITTEN)]
"""A share of the run up to 1.0 (written with a point), or a whole number of steps."""


def span(length: float, total: int) -> int:
    """A span in steps of a run of `total`; a share may round to none."""
    return round(length * total) if isinstance(length, float) and length <= 1 else round(length)


def interval(every: float, total: int) -> int:
    """A span between two times at which something happens: one step at the least."""
    return max(1, span(every, total))


def lead(length: float, total: int) -> int:
    """A span at a run's start: one step at the least, unless it is 0."""
    return interval(length, total) if length > 0 else 0


def due(every: float | None, step: int, total: int) -> bool:
    """Whether something with this `every` happens once `step` steps are done; always at the end."""
    return step == total or (every is not None and step % interval(every, total) == 0)
