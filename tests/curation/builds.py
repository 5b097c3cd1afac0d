"""Small builds, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from foretrain.console import Terminal
from foretrain.corpus.source import open_domain
from foretrain.recipe import Domain

SILENT = Terminal(quiet=True)


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def documents_of(folder: Path) -> list[Any]:
    """The documents of a finished corpus, as a recipe reads them."""
    return list(open_domain(Domain(path=str(folder), validation=0.0)).documents())


def texts_of(folder: Path) -> list[str]:
    """Their texts, sorted."""
    return sorted(document.text for document in documents_of(folder))
