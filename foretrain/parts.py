"""Part: the base of everything a recipe can name by `kind`, and how parts are found.

A part is one class in one file. The file's name is its `kind`; the folder is its axis. There is no list to edit:
`find(Schedule, "cosine")` imports `foretrain/schedules/cosine.py` and takes the `Schedule` whose kind is `cosine`.
Parts of other packages come through the entry-point group `foretrain.parts` (an entry names a module, and importing
it is enough), and parts in a file beside the recipe through its `plugins:`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import hash_bytes
from foretrain.section import Section

P = TypeVar("P", bound="Part")


class Facts(BaseModel):
    """The row of facts of a part: listings, the reference pages and the contract sweep are made from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str = ""
    """Title of the paper that the part follows, or empty."""
    arxiv: str = ""
    """arXiv id of that paper, or empty."""
    year: int | None = None
    answers: str = ""
    """The question it answers, in a few words."""
    needs: tuple[str, ...] = ()
    """What the step must supply for it: `batch_losses` (losses of the whole batch before the backward)."""
    overhead: str = "none"
    """What it costs, in words or as a share of the step."""
    status: Literal["draft", "implemented", "reproduced", "refuted"] = "implemented"


class Part(Section):
    """What a recipe names by `kind`: fields, defaults, documentation, facts and behaviour in one class.

    Fields are frozen. What a part learns or counts lives in private attributes, made by its `setup`, and all of it goes
    through `state_dict` and `load_state_dict` (trees of dicts, lists, tensors, numbers, strings), so that a resumed run
    is exact.
    """

    axis: ClassVar[str] = ""
    """The word for this family in recipes and listings (`schedule` ...); set by the family's base class."""
    modality: ClassVar[str] = "any"
    """What it works on: the kind of a modality (`text`, `image`), or `any`. A recipe whose objective learns from
    something else is refused."""
    facts: ClassVar[Facts] = Facts()
    neutral: ClassVar[dict[str, Any] | None] = None
    """Settings under which the whole code path runs and changes nothing; None where there is no such setting."""

    kind: str

    def special_tokens(self) -> Sequence[str]:
        """Names of special tokens that the tokenizer is to have for it (`tokens/reserved.py`).

        Asked of the objective and of steering parts, before anything is set up.
        """
        return ()

    def state_dict(self) -> dict[str, Any]:
        """All private state as a tree of plain data and tensors; empty for parts that keep none."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise RequestError(f"{self.axis} '{self.kind}' keeps no state, but the checkpoint holds some for it.")

    @classmethod
    def name(cls) -> str:
        """The `kind` of this class."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def concrete(cls) -> bool:
        """Whether this class is a part a recipe can name (and not the base of a family)."""
        return isinstance(cls.model_fields["kind"].default, str)


def _below(base: type[P]) -> Iterator[type[P]]:
    for child in base.__subclasses__():
        if child.concrete():
            yield child
        yield from _below(child)


@cache
def _load_entry_points() -> None:
    for entry in entry_points(group="foretrain.parts"):
        entry.load()


def load_plugin(name: str) -> None:
    """Import the parts of a recipe's plug-in: a `.py` file by its path, or an installed module."""
    if not name.endswith(".py"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RequestError(f"plugins: the module '{name}' cannot be imported ({error}).") from error
        return
    path = Path(name)
    if not path.is_file():
        raise RequestError(f"plugins: there is no file {path}.")
    module = f"foretrain_plugin_{path.stem}_{hash_bytes(path.read_bytes(), 6)}"
    if module in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        del sys.modules[module]
        raise RequestError(f"plugins: {path} cannot be imported ({type(error).__name__}: {error}).") from error


def with_plugins(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Import the `plugins` that a file names; their files are named by absolute paths then, modules as they were.

    So what the file holds may be read again from elsewhere.

    Raises:
        RequestError: one cannot be imported.
    """
    plugins = data.get("plugins")
    if not isinstance(plugins, list):
        return data
    named = [str((folder / str(name)).resolve()) if str(name).endswith(".py") else str(name) for name in plugins]
    for name in named:
        load_plugin(name)
    return {**data, "plugins": named}


def _package(base: type[Part]) -> str:
    return base.__module__.rpartition(".")[0]


def _modules(base: type[Part]) -> list[str]:
    package = importlib.import_module(_package(base))
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


def find(base: type[P], kind: str) -> type[P]:
    """The part of a family by its kind.

    Raises:
        RequestError: there is none; the message names the nearest kind.
    """
    for load in (lambda: _import_kind(base, kind), _load_entry_points, lambda: kinds(base)):
        load()
        # The last definition wins: a plug-in that was edited and loaded again replaces its older self.
        found = [part for part in _below(base) if part.name() == kind]
        if found:
            return found[-1]
    raise RequestError(unknown_name(f"{base.axis} of kind", kind, kinds(base)))


def _import_kind(base: type[Part], kind: str) -> None:
    if kind.isidentifier() and kind in _modules(base):
        importlib.import_module(f"{_package(base)}.{kind}")


def kinds(base: type[P]) -> dict[str, type[P]]:
    """Every part of a family, by kind: those of this package, of installed plug-ins and of files loaded so far."""
    for name in _modules(base):
        importlib.import_module(f"{_package(base)}.{name}")
    _load_entry_points()
    # As in `find`, the last definition of a kind wins.
    found = {part.name(): part for part in _below(base)}
    return {kind: found[kind] for kind in sorted(found)}


def families() -> dict[str, type[Part]]:
    """Every family (axis) of parts in this package, by the word for it."""
    import foretrain

    found: dict[str, type[Part]] = {}
    for module in pkgutil.walk_packages(foretrain.__path__, "foretrain."):
        if module.name.endswith(".base"):
            for _, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(value, Part) and value.__module__ == module.name and not value.concrete() and value.axis:
                    found[value.axis] = value
    return dict(sorted(found.items()))


_DESCRIBING: list[type[Part]] = []
"""Families whose JSON Schema is being made, the innermost last."""


class _Chooser:
    """Reads `{kind: ..., ...}` (or the bare kind) as the part of a family that it names."""

    def __init__(self, base: type[Part]) -> None:
        self.base = base

    def choose(self, value: Any, info: ValidationInfo) -> Part:
        if isinstance(value, self.base):
            return value
        if isinstance(value, str):
            value = {"kind": value}
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise PydanticCustomError(
                "part",
                "{text}",
                {"text": f"should name a {self.base.axis}, such as {{kind: {next(iter(kinds(self.base)), '...')}}}"},
            )
        try:
            part = find(self.base, value["kind"])
        except RequestError as error:
            raise PydanticCustomError("part", "{text}", {"text": str(error)}) from error
        return part.model_validate(value, context=info.context)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self.choose,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda part: part.model_dump(mode="json")),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        parts = kinds(self.base)
        if self.base in _DESCRIBING:
            # A part that holds parts of its own family (phases of objectives): below it only kinds are told.
            named = {"type": "object", "required": ["kind"], "properties": {"kind": {"enum": list(parts)}}}
            return {"anyOf": [{"enum": list(parts)}, named]}
        _DESCRIBING.append(self.base)
        try:
            described = [handler(part.__pydantic_core_schema__) for part in parts.values()]
        finally:
            _DESCRIBING.pop()
        # A bare kind, or a mapping that names one: `kind` has a default in the class but not in a recipe.
        return {"anyOf": [{"enum": list(parts)}, {"required": ["kind"], "oneOf": described}]} if parts else {"enum": []}


def chosen(annotation: Any) -> type[Part] | None:
    """The family of a `PartOf[...]` annotation; None for any other type."""
    for item in get_args(annotation)[1:]:
        if isinstance(item, _Chooser):
            return item.base
    return None


if TYPE_CHECKING:
    PartOf = Annotated[P, None]
else:

    class PartOf:
        """`PartOf[Schedule]`: the type of a field that holds any part of that family."""

        def __class_getitem__(cls, base: type[Part]) -> Any:
            return Annotated[base, _Chooser(base)]
