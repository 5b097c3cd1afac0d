"""The source files of the standard library of this interpreter, read as text and never imported."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, Path] = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        # `_sysconfigdata...` and what lies in `config-...` describe one machine, not Python.
        if not LEFT_OUT.intersection(parts) and not parts[0].startswith(("_sysconfigdata", "config-")):
            found[".".join(parts).removesuffix(".__init__")] = path
    for name, path in sorted(found.items()):
        try:
            yield Module(name, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # A handful of files of old versions are in Latin-1; not worth a decoder.
