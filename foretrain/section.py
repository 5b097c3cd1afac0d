"""Section: the frozen pydantic model under every part and every section of a recipe, and the numbers they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from foretrain.errors import RequestError, unknown_name

if TYPE_CHECKING:
    from typing_extensions import Self

Model = TypeVar("Model", bound=BaseModel)
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


WRITTEN = Annotated[str, Field(pattern=r"^\s*[0-9][0-9_]*\.?[0-9]*([eE][+-]?[0-9]+)?\s*[KMBGTPEkmbgtpe]?\s*$")]
"""A number as text, in the JSON Schema."""
Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | WRITTEN)]
"""A whole number that may be written `4M` or `2e6`."""
Number = Annotated[float, BeforeValidator(parse_number, json_schema_input_type=float | WRITTEN)]
"""A number that may be written `4M` or `2e15` (YAML itself reads `2e15` as text)."""


def _folder(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", "."))


def _data_path(value: Any, info: ValidationInfo) -> Any:
    """A path as an absolute one, from the recipe's folder on; `data:X`, `builtin:X` and `hub:X` stay."""
    if isinstance(value, str) and re.match(r"^hub:[.~/]", value):  # a data set's local folder
        return f"hub:{_data_path(value.removeprefix('hub:'), info)}"
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
"""A file or folder of data (relative to the recipe, or `data:FILE` below the folder that the environment variable
FORETRAIN_DATA names), `builtin:NAME`, or `hub:NAME`."""
ModelPath = Annotated[str, BeforeValidator(_model_path)]
"""A folder (relative to the recipe) that holds a model or tokenizer, or a Hugging Face hub id."""


class Section(BaseModel):
    """A frozen piece of a recipe. A key it doesn't have is an error that names the nearest one it has."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=False,
        use_attribute_docstrings=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, value: Any) -> Any:
        """`optimizer: {lr: 1e-3}` is of the kind that stands where no optimizer is named."""
        if not isinstance(value, dict):
            return value
        defaults = {name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, dict)}
        return {
            name: {**defaults[name], **item}
            if name in defaults and isinstance(item, dict) and "kind" in defaults[name]
            else item
            for name, item in value.items()
        }

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        keys = {field.alias or name for name, field in cls.model_fields.items()}
        if not isinstance(value, dict) or not (unknown := [key for key in value if key not in keys]):
            return handler(value)
        texts = [unknown_name("key", str(key), keys) for key in unknown]
        kinds = [PydanticCustomError("unknown_key", "{text}", {"text": text}) for text in texts]
        faults = [InitErrorDetails(type=kind, input=value) for kind in kinds]
        # The known keys are read too, so that one message holds every fault.
        try:
            handler({key: item for key, item in value.items() if key in keys})
        except ValidationError as error:
            faults += [_restated(fault) for fault in error.errors()]
        raise ValidationError.from_exception_data(cls.__name__, faults)


def _restated(fault: ErrorDetails) -> InitErrorDetails:
    kind = PydanticCustomError("restated", "{text}", {"text": fault["msg"]})
    return InitErrorDetails(type=kind, loc=fault["loc"], input=fault["input"])


def _branch(key: int | str) -> bool:
    """Whether a step of a fault's place is pydantic's name for one type of a union, and no key of the recipe."""
    return isinstance(key, str) and key.startswith(("function-", "list[", "dict[", "literal[", "nullable["))


class Faults(ValueError):
    """Several faults that one validator found, a sentence each."""

    def __init__(self, found: Iterable[str]) -> None:
        self.all = list(found)
        super().__init__("; ".join(self.all))


def problems(error: ValidationError, within: str = "") -> list[str]:
    """Every fault in a validation error as `where: what`; `within` is the place of the section that was read."""
    lines: dict[str, None] = {}
    for fault in error.errors():
        path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in fault["loc"] if not _branch(key))
        path = (within + path).lstrip(".")
        raised = fault.get("ctx", {}).get("error")
        messages = raised.all if isinstance(raised, Faults) else [fault["msg"].removeprefix("Value error, ")]
        given = fault.get("input")
        shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
        lines |= {f"{path}: {message}{shown}" if path else f"{message}{shown}": None for message in messages}
    return list(lines)


def read_section(section: type[Model], data: Any, source: str, folder: Path | None = None) -> Model:
    """A section from plain data; relative paths in it start at `folder`.

    Args:
        section: its class.
        data: what it is made of.
        source: what the data are called where they have faults.
        folder: where relative paths start; the working directory if left out.

    Raises:
        RequestError: faults, all of them in one message.
    """
    try:
        return section.model_validate(data, context=None if folder is None else {"folder": folder})
    except ValidationError as error:
        raise refusal(source, problems(error)) from error


def refusal(source: str, faults: Sequence[str]) -> RequestError:
    """The one error that holds all faults of a file (or of other plain data, named by `source`)."""
    listing = "\n".join(f"  - {fault}" for fault in faults)
    return RequestError(f"{source} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n{listing}")
