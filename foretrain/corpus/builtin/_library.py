"""The source files of the standard library of this interpreter, read as text and never imported."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from foretrain.hashing import hash_data, hash_file

LEFT_OUT = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)
"""Folders without code worth reading: tests, bundled wheels, character tables, and what only some systems install."""


class Module(NamedTuple):
    """One source file: its dotted name (`email.message`), and its text."""

    name: str
    source: str


def modules() -> Iterator[Module]:
    """Every module of the standard library in the order of its dotted name."""
    for name, path in _files():
        try:
            yield Module(name, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # A handful of files of old versions are in Latin-1; not worth a decoder.


def _files() -> list[tuple[str, Path]]:
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Path] = {}
    for folder, inside, names in os.walk(root):
        inside[:] = [name for name in inside if name not in LEFT_OUT]  # what is installed may be a hundred times more
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            parts = path.relative_to(root).with_suffix("").parts
            # `_sysconfigdata...` and what lies in `config-...` describe one machine, not Python.
            if parts[-1] not in LEFT_OUT and not parts[0].startswith(("_sysconfigdata", "config-")):
                found[".".join(parts).removesuffix(".__init__")] = path
    return sorted(found.items())


@cache
def library_hash() -> str:
    """Hash of all these files, and of pydoc's topics beside them; in about 0.1 s, once in a process."""
    topics = Path(sysconfig.get_path("stdlib"), "pydoc_data", "topics.py")
    files = [*_files(), *([("topics", topics)] if topics.is_file() else [])]
    return hash_data([(name, hash_file(path)) for name, path in files])
