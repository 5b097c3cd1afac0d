"""Where: which records of a domain are kept, by the values of their fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler

Value = bool | int | str
"""What a field may be asked to hold; a file's own value is compared as text, since CSV knows nothing else."""
Wanted = Value | Annotated[list[Value], Field(min_length=1)]
"""One value, or several of which any will do."""


def without_unused(self: Any, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """For a section's serializer: no `where` where there is none, so that hashes from before filters stay the same."""
    plain: dict[str, Any] = handler(self)
    if not plain.get("where"):
        plain.pop("where", None)
    return plain


_SHOWN = 8
_COUNTED = 1_000


class Where:
    """The conditions of a domain, and what came by that did not meet them.

    Args:
        wanted: by field, the value (or values, any of which will do) that a record needs; every field has to fit.

    Attributes:
        wanted: the fields, each with its values as text.
    """

    def __init__(self, wanted: Mapping[str, Value | list[Value]]) -> None:
        self.wanted = {
            name: [_text(value) for value in (values if isinstance(values, list) else [values])]
            for name, values in wanted.items()
        }
        self._seen: dict[str, Counter[str]] = {name: Counter() for name in wanted}

    def keeps(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record, which has all the fields, has the right values in them."""
        kept = True
        for name, values in self.wanted.items():
            found, seen = _text(fields[name]), self._seen[name]
            if found in seen or len(seen) < _COUNTED:
                seen[found] += 1
            kept = kept and found in values
        return kept

    def describe(self) -> str:
        """The conditions, and how often which values were met: for the error where nothing is left."""
        asked = " and ".join(f"{name} {' or '.join(values)}" for name, values in self.wanted.items())
        there = []
        for name, seen in self._seen.items():
            listed = [f"{value[:40]} ({count})" for value, count in seen.most_common(_SHOWN)]
            more = f" and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
            there.append(
                f"the values of '{name}' there are {', '.join(listed)}{more}" if listed else "no record at all"
            )
        return f"with {asked} ({'; '.join(there)})"


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
