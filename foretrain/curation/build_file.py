"""CorpusBuild: the file that says what a corpus is built from, by which steps, and where that is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from foretrain.curation.executors.base import CorpusExecutor
from foretrain.curation.reading import Read
from foretrain.curation.steps.base import CorpusStep
from foretrain.overrides import with_override
from foretrain.parts import PartOf, kinds, with_plugins
from foretrain.plain_yaml import read_mapping
from foretrain.section import Count, Faults, Section, read_section


def _one_alone(value: Any) -> Any:
    """A path or one `{path: ...}` alone, as the list of one that it is."""
    if isinstance(value, str):
        return [{"path": value}]
    if isinstance(value, list):
        return [{"path": item} if isinstance(item, str) else item for item in value]
    return [value]


class CorpusBuild(Section):
    """Everything that one build needs."""

    format: Literal[1] = 1
    """Version of the format of this file."""
    name: str = Field("corpus", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the corpus; its folder is `corpora/NAME` unless `--out` says otherwise."""
    read: Annotated[
        list[Read],
        BeforeValidator(_one_alone, json_schema_input_type=Read | str | list[Read | str]),
        Field(min_length=1),
    ]
    """What it is built from: a path, one `{path: ...}` with its settings, or a list of these."""
    steps: list[PartOf[CorpusStep]] = []
    """What is done to the documents, in this order."""
    shards: Count = Field(1, gt=0)
    """How many files the corpus has, and how many tasks there are that can run side by side."""
    executor: PartOf[CorpusExecutor] = Field({"kind": "local"}, validate_default=True)
    """Where tasks run; what comes out does not depend on it."""
    examples: Count = Field(3, ge=0)
    """Examples of dropped documents that the data card shows for each reason."""
    plugins: list[str] = []
    """Files (relative to this one) or installed modules with further parts."""

    @model_validator(mode="after")
    def _possible(self) -> CorpusBuild:
        if faults := list(order_faults(self.steps)):
            raise Faults(faults)
        return self

    def plain(self) -> dict[str, Any]:
        """The build, defaults included, as plain data."""
        return self.model_dump(mode="json")


def order_faults(steps: Sequence[CorpusStep]) -> Iterator[str]:
    """What is impossible in an order of steps, a sentence each."""
    given: dict[str, str] = {}
    for number, step in enumerate(steps):
        for name in step.needs:
            if name not in given:
                who = _who_gives(name, steps)
                yield f"steps[{number}]: {step.kind} needs the score '{name}' of each document, {who}"
        for name in step.gives():
            if name in given:
                yield f"steps[{number}]: {step.kind} gives the score '{name}', which {given[name]} has given before"
            given.setdefault(name, step.kind)
        yield from (f"steps[{number}]: {fault}" for fault in step.faults(steps[:number]))


def _who_gives(name: str, steps: Sequence[CorpusStep]) -> str:
    later = [step.kind for step in steps if name in step.gives()]
    if later:
        return f"and {later[0]} gives it only after that; put {later[0]} before"
    makers = [kind for kind, part in kinds(CorpusStep).items() if name in _usual_scores(part)]  # type: ignore[type-abstract]
    return f"and no step gives it; put {' or '.join(makers) or 'one that does'} before"


def _usual_scores(part: type[CorpusStep]) -> tuple[str, ...]:
    try:
        return part.model_validate({"kind": part.name()}).gives()
    except ValidationError:
        return ()


def load_build(path: Path | str, overrides: Sequence[str] = ()) -> CorpusBuild:
    """Read a build's YAML file and apply `a.b=c` overrides.

    Raises:
        RequestError: no such file, broken YAML, or faults (all of them in one message).
    """
    path = Path(path)
    data = read_mapping(path, "build", "name, read and steps")
    for override in overrides:
        data = with_override(data, override)
    return make_build({"name": path.stem, **data}, path.parent, str(path))


def make_build(data: dict[str, Any], folder: Path | str = Path(), source: str = "build") -> CorpusBuild:
    """A build from plain data; relative paths start at `folder`."""
    folder = Path(folder)
    data = with_plugins(data, folder)
    return read_section(CorpusBuild, data, source, folder)
