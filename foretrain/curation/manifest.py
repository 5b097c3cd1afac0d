"""Manifest: what a finished corpus says of itself: what it was made from and how, what became of every document, cost.

`hash` is of the documents alone, `build_hash` of inputs and settings. Where both builds end, equal `build_hash` gives
equal `hash`, whatever the executor and its workers.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import foretrain
from foretrain.errors import CorruptFile, RequestError
from foretrain.files import read_json
from foretrain.hashing import hash_data, hash_file

if TYPE_CHECKING:
    from foretrain.curation.build_file import CorpusBuild
    from foretrain.curation.building import Built

FORMAT = 1
"""Version of the format of manifests, and of what stages leave."""
_PACKAGES = ("datatrove", "numpy", "pyarrow", "scipy")


def make_manifest(
    made: CorpusBuild,
    folder: Path,
    done: Sequence[Built],
    columns: Mapping[str, str],
    build_hash: str,
    seconds: float,
) -> dict[str, Any]:
    """The manifest of a corpus whose shards are written, as plain data.

    Args:
        made: what was asked for.
        folder: where the shards are.
        done: every stage, from reading on.
        columns: types of the columns besides `id`, `text` and `source`.
        build_hash: of inputs and settings.
        seconds: what writing the shards took.
    """
    last = done[-1].counts
    shards = [{"file": path.name, "hash": hash_file(path)} for path in sorted(folder.glob("documents-*.parquet"))]
    processor = sum(each.counts.seconds for each in done)
    return {
        "format": FORMAT,
        "name": made.name,
        "hash": hash_data(shards),
        "build_hash": build_hash,
        "documents": last.kept,
        "bytes": last.kept_bytes,
        "columns": {"id": "text", "text": "text", "source": "text", **columns},
        "shards": shards,
        "inputs": [read.content() for read in made.read],
        "build": made.plain(),
        "stages": [
            _stage(each, None if number == 0 else made.steps[number - 1].content()) for number, each in enumerate(done)
        ],
        "cost": {
            "seconds": sum(each.seconds for each in done) + seconds,
            "sifting_seconds": processor,
        },
        "software": {
            "foretrain": foretrain.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
    }


def _stage(built: Built, content: Any) -> dict[str, Any]:
    return {
        "kind": built.kind,
        "hash": built.hash,
        "content": content,
        **built.counts.plain(),
        "wall": built.seconds,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def is_corpus(folder: Path) -> bool:
    """Whether a folder holds a finished corpus."""
    if not (folder / "manifest.json").is_file():
        return False
    try:
        found = read_json(folder / "manifest.json")
    except CorruptFile:
        return False
    return isinstance(found, dict) and {"format", "build_hash", "shards"} <= set(found)


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """The manifest of a finished corpus.

    Raises:
        RequestError: the folder holds none.
    """
    folder = Path(folder)
    if not is_corpus(folder):
        raise RequestError(
            f"{folder} holds no finished corpus (there is no manifest.json of one); `foretrain corpus build` makes one."
        )
    found: dict[str, Any] = read_json(folder / "manifest.json")
    return found
