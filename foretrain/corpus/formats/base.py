"""Format: how the records of a file are read; named by the suffix of the file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from foretrain.corpus.compression import SUFFIXES
from foretrain.corpus.decoding import Decoder
from foretrain.errors import RequestError
from foretrain.parts import Part, kinds


class Record(NamedTuple):
    """One record of a file: its line (or row) number from 1, and its fields."""

    number: int
    fields: dict[str, Any]


class Format(Part):
    """Reads files whose suffix is its `kind`, always as a stream: no file is ever held in memory as a whole."""

    axis: ClassVar[str] = "format"
    unit: ClassVar[str] = "line"
    """What `Record.number` counts; for error messages."""
    packed: ClassVar[bool] = True
    """Whether a file may also be compressed as a whole (`.gz`, `.zst`)."""
    plain_text: ClassVar[bool] = False
    """Whether a record is nothing but its text, which has no name in the file (and is called `text` here)."""

    @abstractmethod
    def records(self, path: Path, decoder: Decoder) -> Iterator[Record]:
        """Every record of the file, in order.

        Raises:
            RequestError: the file or one of its records cannot be read; says which file and line.
        """


def suffixes() -> list[str]:
    """Every suffix that can be read, such as `.jsonl` and `.jsonl.gz`."""
    found: list[str] = []
    for kind, part in kinds(Format).items():  # type: ignore[type-abstract]
        found.append(f".{kind}")
        found += [f".{kind}{packing}" for packing in SUFFIXES if part.packed]
    return found


def known(path: Path) -> bool:
    """Whether the name of a file has a suffix that can be read."""
    return path.name.lower().endswith(tuple(suffixes()))


def format_of(path: Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
        RequestError: no format has that suffix; the message lists those that there are.
    """
    name = path.name.lower()
    inner = next((name.removesuffix(packing) for packing in SUFFIXES if name.endswith(packing)), name)
    kind = inner.rpartition(".")[2] if "." in inner else ""
    part = kinds(Format).get(kind)  # type: ignore[type-abstract]
    if part is None:
        raise RequestError(
            f"{path}: files of this kind cannot be read; the name should end in one of {', '.join(suffixes())}."
        )
    if inner != name and not part.packed:
        raise RequestError(f"{path}: a .{kind} file is compressed inside; unpack it and name the .{kind} file itself.")
    return part.model_validate({"kind": kind})
