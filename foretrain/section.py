"""Section: the frozen pydantic model under every part and every section of a recipe, and the numbers they hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from foretrain.errors import unknown_name

_SUFFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_NUMBER = re.compile(r"^\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*([KMBGTPE]?)\s*$", re.IGNORECASE)


def parse_number(value: Any) -> Any:
    """`4M`, `1.5B`, `2e15`, `16_384` as numbers; anything that is not such a text is returned as it is."""
    if not isinstance(value, str):
        return value
    match = _NUMBER.match(value)
    if match is None:
        return value
    return float(match[1].replace("_", "")) * _SUFFIXES[match[2].upper()]


def parse_count(value: Any) -> Any:
    """Like `parse_number`, for whole numbers: `4M` is 4000000, `2.5` is refused."""
    number = parse_number(value)
    if isinstance(number, float):
        if not number.is_integer():
            raise PydanticCustomError("count", "should be a whole number, such as 4096 or 4M")
        return int(number)
    return number


Count = Annotated[int, BeforeValidator(parse_count)]
"""A whole number that may be written `4M` or `2e6`."""
Number = Annotated[float, BeforeValidator(parse_number)]
"""A number that may be written `4M` or `2e15` (YAML itself reads `2e15` as text)."""


def _folder(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", "."))


def _data_path(value: Any, info: ValidationInfo) -> Any:
    """A path as an absolute one; relative paths start at the recipe's folder; `builtin:X` and `hub:X` stay."""
    if not isinstance(value, str | Path) or re.match(r"^[a-z]+:", str(value)):
        return value
    return str((_folder(info) / Path(value).expanduser()).resolve())


def _model_path(value: Any, info: ValidationInfo) -> Any:
    """Like `_data_path` where such a folder exists; anything else is a hub id and stays."""
    if not isinstance(value, str | Path):
        return value
    path = _folder(info) / Path(value).expanduser()
    return str(path.resolve()) if path.exists() else str(value)


DataPath = Annotated[str, BeforeValidator(_data_path)]
"""A file or folder of data (relative to the recipe), `builtin:NAME`, or `hub:NAME`."""
ModelPath = Annotated[str, BeforeValidator(_model_path)]
"""A folder (relative to the recipe) that holds a model or tokenizer, or a Hugging Face hub id."""


class Section(BaseModel):
    """A frozen piece of a recipe. A key it doesn't have is an error that names the nearest one it has."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_key", "{text}", {"text": unknown_name("key", str(key), cls.model_fields)}
                    )
        return value


def problems(error: ValidationError, prefix: tuple[str | int, ...] = ()) -> list[str]:
    """Every fault in a validation error as `where: what`, errors nested in parts included."""
    lines: list[str] = []
    for fault in error.errors():
        where = (*prefix, *fault["loc"])
        nested = (fault.get("ctx") or {}).get("nested")
        if isinstance(nested, ValidationError):
            lines += problems(nested, where)
            continue
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in where).lstrip(".")
        message = fault["msg"].removeprefix("Value error, ")
        given = fault.get("input")
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
        lines.append(f"{path}: {message}{shown}" if path else f"{message}{shown}")
    return lines
