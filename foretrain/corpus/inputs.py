"""Inputs: the three places documents come from: files, built-in corpora, and Hugging Face data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.corpus.formats.base import format_of
from foretrain.corpus.paths import content_hash, list_files, locate
from foretrain.corpus.records import Place, Reader
from foretrain.errors import RequestError, unknown_name
from foretrain.parts import find
from foretrain.section import problems


class Input(ABC):
    """One place that documents come from."""

    @abstractmethod
    def documents(self, reader: Reader) -> Iterator[Document]:
        """Every document, always in the same order, made and counted by `reader`."""

    @abstractmethod
    def identity(self, limit: int | None) -> Any:
        """Plain data with a hash of the content (of the first `limit` documents, where that is cheaper)."""


class FileInput(Input):
    """One file of a known format."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.format = format_of(path)

    def documents(self, reader: Reader) -> Iterator[Document]:
        """Every record with text."""
        file, unit = str(self.path), self.format.unit
        field = "text" if self.format.plain_text else None
        for number, fields in self.format.records(self.path, reader.decoder):
            if self.format.plain_text:
                fields["file"] = self.name
            document = reader.document(fields, Place(file, unit, number), self.name, field)
            if document is not None:
                yield document

    def identity(self, limit: int | None) -> Any:
        """Its name (documents are named after it) and the hash of its bytes."""
        return [self.name, content_hash(self.path)]


class BuiltinInput(Input):
    """A corpus that needs no download."""

    def __init__(self, part: Builtin) -> None:
        self.part = part

    def documents(self, reader: Reader) -> Iterator[Document]:
        """Every document of the part."""
        for number, document in enumerate(self.part.documents(), 1):
            accepted = reader.accept(document, Place(f"builtin:{self.part.kind}", "document", number))
            if accepted is not None:
                yield accepted

    def identity(self, limit: int | None) -> Any:
        """The hash of the documents themselves: they may differ by interpreter."""
        return [f"builtin:{self.part.kind}", self.part.content_hash(limit)]


def open_builtin(name: str, options: Mapping[str, Any]) -> list[Input]:
    """The built-in corpus of a name, with the settings of the domain's `options`.

    Raises:
        RequestError: there is none of that name, or a setting is wrong.
    """
    try:
        part = find(Builtin, name)  # type: ignore[type-abstract]
        return [BuiltinInput(part.model_validate({**options, "kind": name}))]
    except ValidationError as error:
        faults = "; ".join(problems(error, within="options"))
        raise RequestError(f"builtin:{name}: {faults}") from error


def open_hub(name: str, options: Mapping[str, Any]) -> list[Input]:
    """The Hugging Face data set of a name, or in a local folder."""
    from foretrain.corpus.hub import HubInput

    return [HubInput(name, options)]


def open_files(path: str) -> list[Input]:
    """The file behind a path (`data:FILE` too), or every file of the folder that is there."""
    return [FileInput(source, file) for source, file in list_files(locate(path))]


_PREFIXES: dict[str, Callable[[str, Mapping[str, Any]], list[Input]]] = {"builtin": open_builtin, "hub": open_hub}


def open_path(path: str, options: Mapping[str, Any] | None = None) -> list[Input]:
    """The inputs behind one path of a recipe: `builtin:NAME`, `hub:NAME`, `data:FILE`, a file, or a folder of files.

    Raises:
        RequestError: nothing is there, or it cannot be read.
    """
    prefix, colon, name = path.partition(":")
    if prefix in _PREFIXES and colon:
        return _PREFIXES[prefix](name, options or {})
    # A single letter is a drive, and an existing file may have any name.
    if colon and len(prefix) > 1 and prefix.isalpha() and prefix != "data" and not Path(path).exists():
        fault = unknown_name("source", f"{prefix}:", [*(f"{known}:" for known in _PREFIXES), "data:"])
        raise RequestError(f"{path}: {fault} A file is named by its path alone.")
    return open_files(path)
