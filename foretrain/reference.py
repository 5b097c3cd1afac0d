"""Reference: the recipe's schema and every part described as data, and the generated pages of docs/.

Names, types, defaults, bounds and texts all come from the classes themselves, so a page can't say something else than
the code does; the page of claims is made from their results. `python -m foretrain.reference --write docs` writes them;
a test keeps the committed ones up to date.
"""

from __future__ import annotations

import argparse
import inspect
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from foretrain import overheads
from foretrain.errors import RequestError, unknown_name
from foretrain.files import write_atomic
from foretrain.parts import Part, chosen, families, find, kinds
from foretrain.recipe import Recipe
from foretrain.section import Count, DataPath, ModelPath, Number, Section
from foretrain.spans import Span

_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Any: "anything",
}
_VALIDATED = {
    get_args(alias)[1].func: word
    for alias, word in (
        (Count, "count"),
        (Number, "number"),
        (Span, "span"),
        (DataPath, "path"),
        (ModelPath, "folder or hub id"),
    )
}
_BOUNDS = {
    annotated_types.Gt: ("gt", "> {}"),
    annotated_types.Ge: ("ge", ">= {}"),
    annotated_types.Lt: ("lt", "< {}"),
    annotated_types.Le: ("le", "<= {}"),
    annotated_types.MinLen: ("min_length", "at least {} of them"),
    annotated_types.MaxLen: ("max_length", "at most {} of them"),
}


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, with every part that is installed (draft 2020-12)."""
    made = Recipe.model_json_schema()
    for name, field in Recipe.model_fields.items():
        if isinstance(field.default, dict) and "kind" in field.default:
            # A section with a default kind may leave `kind` out: then it is of that one.
            base = next(base for item in field.metadata if (base := chosen(Annotated[(Any, item)])) is not None)
            default = find(base, field.default["kind"]).model_json_schema()
            made["$defs"] |= default.pop("$defs", {})
            made["properties"][name]["anyOf"].append(default)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_standard(made)}


def _standard(node: Any) -> Any:
    """`node` with pydantic's names for bounds inside unions replaced by those of JSON Schema."""
    names = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
    if isinstance(node, dict):
        return {
            names.get(key, key) if isinstance(item, int | float) else key: _standard(item) for key, item in node.items()
        }
    return [_standard(item) for item in node] if isinstance(node, list) else node


def describe_parts(axis: str | None = None) -> list[dict[str, Any]]:
    """Every part a recipe may name, or those of one axis, as plain data.

    Each has `axis`, `kind`, `summary`, `doc`, `fields` (see `describe_fields`), `facts`, `module` and `measured` (what
    it costs beside a plain step, see `overheads`; or None).

    Raises:
        RequestError: there is no such axis; the message names the nearest one.
    """
    bases = families()
    if axis is not None and axis not in bases:
        raise RequestError(unknown_name("axis", axis, bases))
    chosen_bases = bases if axis is None else {axis: bases[axis]}
    return [_describe(part) for base in chosen_bases.values() for part in kinds(base).values()]


def find_parts(name: str | None = None) -> list[dict[str, Any]]:
    """The parts of an axis, or those of one kind (of whichever axis), or all of them.

    Raises:
        RequestError: there is neither an axis nor a kind of that name.
    """
    if name is None or name in families():
        return describe_parts(name)
    everything = describe_parts()
    found = [part for part in everything if part["kind"] == name]
    if not found:
        names = [*families(), *(part["kind"] for part in everything)]
        raise RequestError(unknown_name("axis or kind", name, names))
    return found


def _describe(part: type[Part]) -> dict[str, Any]:
    text = inspect.getdoc(part) or ""
    return {
        "axis": part.axis,
        "kind": part.name(),
        "summary": " ".join(text.partition("\n\n")[0].split()),
        "doc": text,
        "fields": describe_fields(part, leave_out=("kind",)),
        "facts": part.facts.model_dump(mode="json"),
        "module": part.__module__,
        "measured": overheads.measured(part.axis, part.name()),
    }


def describe_fields(section: type[Section], leave_out: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The fields of a section: `name, type, required, bounds, doc`, and `default` where there is one."""
    left_out = {*leave_out}
    return [_field(name, field) for name, field in section.model_fields.items() if name not in left_out]


def _field(name: str, field: FieldInfo) -> dict[str, Any]:
    pieces: Any = (field.annotation, *field.metadata)
    described: dict[str, Any] = {
        "name": field.alias or name,
        "type": _type(Annotated[pieces] if field.metadata else field.annotation),
        "required": field.is_required(),
    }
    if not field.is_required():
        described["default"] = to_jsonable_python(field.get_default(call_default_factory=True))
    return {**described, "bounds": _bounds(field), "doc": " ".join((field.description or "").split())}


def _bounds(field: FieldInfo) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for constraint in field.metadata:
        if type(constraint) in _BOUNDS:
            key = _BOUNDS[type(constraint)][0]
            found[key] = getattr(constraint, key)
        elif isinstance(pattern := getattr(constraint, "pattern", None), str):
            found["pattern"] = pattern
    return found


def _type(annotation: Any) -> str:
    """A type in words that a person who writes YAML uses."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        family = chosen(annotation)
        if family is not None:
            return family.axis
        validators = [item.func for item in arguments[1:] if isinstance(item, BeforeValidator)]
        named = [_VALIDATED[function] for function in validators if function in _VALIDATED]
        return named[0] if named else _type(arguments[0])
    if origin in (Union, types.UnionType):
        # A path is text too: said once.
        return " or ".join(dict.fromkeys(_type(argument) for argument in arguments))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return (
            "list of " + _type(inner[0]) if len(set(inner)) == 1 else ", ".join(_type(argument) for argument in inner)
        )
    if origin is dict:
        return f"{_type(arguments[1])} by name"
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return annotation.__name__
    return getattr(annotation, "__name__", str(annotation))


def sections(root: type[Section] = Recipe) -> list[type[Section]]:
    """The recipe (or a study) and every section below it that is not a part, in the order in which they are named."""
    found: dict[type[Section], None] = {root: None}

    def walk(annotation: Any) -> None:
        if inspect.isclass(annotation) and issubclass(annotation, Section):
            if annotation not in found and not issubclass(annotation, Part):
                found[annotation] = None
                for field in annotation.model_fields.values():
                    walk(field.annotation)
            return
        for argument in get_args(annotation):
            walk(argument)

    for field in root.model_fields.values():
        walk(field.annotation)
    return list(found)


_GENERATED = (
    "<!-- Written by `python -m foretrain.reference --write docs`; change the docstrings it is made from. -->\n"
)

_RECIPE_HEAD = """# The recipe

One YAML file says everything that one run needs. Everything but `budget`, `model` and `corpus` has a default.

```yaml recipe
name: my-first-run
budget: {tokens: 4M}
model: {kind: llama, layers: 6, width: 256, heads: 4, context: 256}
corpus:
  general: {path: data/general.jsonl.gz, weight: 0.7}
  biomedical: {path: data/biomedical.jsonl.gz, weight: 0.3, validation: 0.05}
```

- `foretrain check RECIPE` resolves a recipe and says what it would cost; `foretrain schema` prints its JSON Schema,
  with which an editor completes and checks it.
- **Numbers** may be written `4096`, `16_384`, `4M`, `1.5B` or `2e15`. A *count* is a whole number.
- **Spans** (how often, how long) are a share of the run, written with a point (`0.1`; `1.0` is all of it), or a whole
  number of steps (`500`; `1` is every step).
- **Paths** are relative to the recipe's folder. `builtin:NAME` and `hub:NAME` are no paths; `data:FILE` lies below the
  folder that the environment variable FORETRAIN_DATA names ([data.md](data.md)).
- **Parts** (schedule, objective, task ...) are named by `kind`; a bare word stands for `{kind: word}`. Where a part has
  a default, `kind` may be left out. All of them are in [parts.md](parts.md), and `foretrain parts` lists them.
- **Overrides**: `--set optimizer.lr=1e-3 --set budget.steps=200 --set steering.0.every=4`; the value is YAML, a number
  picks an item of a list, and a new `kind` drops the fields of the former one.
- A **key that does not exist** is an error that names the nearest one that does, at every depth. All faults of a recipe
  come in one message.
- The run directory keeps the complete recipe, defaults written out, as `recipe.yaml`.
"""

_PARTS_HEAD = """# Parts

Everything that a recipe names by `kind`. A part is one class in one file; this page is made from those classes, and so
is `foretrain parts [KIND] [--json]`. Where a part follows a paper, the paper is named.
"""


_STUDY_HEAD = """# The study file

Every key of what `foretrain study` reads. [Studies](studies.md) shows how they are used; numbers, paths, parts and
misspelt keys are as in [the recipe](recipe.md). Overrides: `--set seeds=8 --set base.optimizer.lr=1e-3`.
"""


def recipe_page() -> str:
    """docs/recipe.md: every key of a recipe."""
    return _schema_page(_RECIPE_HEAD, Recipe)


def study_page() -> str:
    """docs/study-file.md: every key of a study."""
    from foretrain.studies.forecast import ForecastStudy
    from foretrain.studies.study import Study  # only this page needs studies
    from foretrain.studies.train_once import TrainOnceStudy

    others = dict.fromkeys([*sections(TrainOnceStudy), *sections(ForecastStudy)])
    more = [section for section in others if section not in sections(Study)]
    return "\n".join([_schema_page(_STUDY_HEAD, Study), *(_schema_section(each, each.__name__) for each in more)])


def _schema_page(head: str, root: type[Section]) -> str:
    pieces = [head, _GENERATED]
    pieces += [_schema_section(each, "Top level" if each is root else each.__name__) for each in sections(root)]
    return "\n".join(pieces)


def _schema_section(section: type[Section], title: str) -> str:
    return f"## {title}\n\n{inspect.getdoc(section)}\n\n{_table(describe_fields(section))}"


def parts_page() -> str:
    """docs/parts.md: every part of this package (and no plug-in's), with its fields and facts."""
    pieces = [_PARTS_HEAD, _GENERATED]
    for axis, base in families().items():
        pieces.append(f"## {axis}\n\n{inspect.getdoc(base)}\n")
        pieces += [_part(part) for part in describe_parts(axis) if part["module"].startswith("foretrain.")]
    return "\n".join(pieces)


def _part(described: dict[str, Any]) -> str:
    facts = described["facts"]
    paper = facts["paper"]
    if facts["arxiv"]:
        paper = f"[{paper or 'arXiv:' + facts['arxiv']}](https://arxiv.org/abs/{facts['arxiv']})"
    row = {
        "answers": facts["answers"],
        "paper": paper + (f" ({facts['year']})" if paper and facts["year"] else ""),
        "needs": ", ".join(facts["needs"]),
        "costs": "" if facts["overhead"] == "none" else facts["overhead"],
        "measured": overheads.measured_words(described["axis"], described["kind"]),
        "status": "" if facts["status"] == "implemented" else facts["status"],
    }
    lines = "".join(f"- {key}: {value}\n" for key, value in row.items() if value)
    table = _table(described["fields"]) if described["fields"] else "No settings.\n"
    pieces = [f"### {described['axis']} `{described['kind']}`\n", described["doc"] + "\n", lines, table]
    return "\n".join(piece for piece in pieces if piece)


def _table(fields: list[dict[str, Any]]) -> str:
    rows = ["| key | type | default | what it is |", "| --- | --- | --- | --- |"]
    for field in fields:
        default = "*required*" if field["required"] else f"`{show_default(field['default'])}`"
        bounds = ", ".join(
            shape.format(show_default(field["bounds"][key]))
            for key, shape in _BOUNDS.values()
            if key in field["bounds"]
        )
        kind = field["type"] + (f", {bounds}" if bounds else "")
        rows.append(
            "| " + " | ".join(_cell(text) for text in (f"`{field['name']}`", kind, default, field["doc"])) + " |"
        )
    return "\n".join(rows) + "\n"


def show_default(value: Any) -> str:
    """A default as a recipe would write it, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        if isinstance(value.get("kind"), str):
            return value["kind"]
        return "{" + ", ".join(f"{key}: {show_default(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(show_default(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def claims_page() -> str:
    """docs/claims.md: every claim with its last verdict."""
    from foretrain.claims.register import page  # only this page needs studies

    return page()


PAGES = {
    "recipe.md": recipe_page,
    "parts.md": parts_page,
    "study-file.md": study_page,
    "claims.md": claims_page,
}
"""The generated pages of docs/ by file name."""


def write(folder: Path) -> list[Path]:
    """Write the generated pages into `folder`; the paths written."""
    for name, page in PAGES.items():
        write_atomic(folder / name, page())
    return [folder / name for name in PAGES]


def main() -> None:
    """`python -m foretrain.reference --write FOLDER`."""
    parser = argparse.ArgumentParser(
        prog="python -m foretrain.reference", description="Write the generated pages of docs/."
    )
    parser.add_argument("--write", type=Path, required=True, metavar="FOLDER")
    for path in write(parser.parse_args().write):
        print(path)


if __name__ == "__main__":
    main()
