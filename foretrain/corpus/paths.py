"""Paths: the files that a recipe's file or folder of data stands for."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from foretrain.corpus.formats.base import format_of, known, suffixes
from foretrain.errors import RequestError, nearest
from foretrain.hashing import hash_file

_DATA = "FORETRAIN_DATA"


def locate(path: str) -> Path:
    """The file or folder that a recipe's path names; `data:FILE` lies below the folder that `$FORETRAIN_DATA` names.

    Recipes keep such a path as it is written: what is published names no machine's folders.

    Raises:
        RequestError: a `data:` path where the variable is not set, that leads out of the folder, or to nothing.
    """
    if not path.startswith("data:"):
        return Path(path).expanduser()
    name = path.removeprefix("data:")
    inside = PurePosixPath(name)
    if not inside.parts or inside.is_absolute() or ".." in inside.parts:
        raise RequestError(f"{path}: after data: stands a path inside the folder of data, such as data:maths/x.jsonl.")
    folder = os.environ.get(_DATA, "")
    origin = "docs/data.md says where the files come from that our claims use."
    if not folder:
        raise RequestError(
            f"{path} lies in the folder that the environment variable {_DATA} names, and it is not set. Put the file "
            f"there under the name {name} and say `export {_DATA}=FOLDER`; {origin}"
        )
    found = Path(folder).expanduser() / inside
    if not found.exists():
        raise RequestError(f"{path} ({_DATA} is {folder}): {missing(found)} {origin}")
    return found


def list_files(path: Path) -> list[tuple[str, Path]]:
    """The data files behind a path, each with the name its documents get as their source.

    A file is itself, by its own name. A folder is every file below it with a suffix that can be read, sorted by the
    path inside the folder, which is also its name; hidden files and folders are passed over.

    Raises:
        RequestError: no such file, a suffix that cannot be read, or a folder without any file that can.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise missing(path)
    format_of(path)
    return [(path.name, path)]


def _in_folder(folder: Path) -> list[tuple[str, Path]]:
    files = {found.relative_to(folder).as_posix(): found for found in folder.rglob("*") if found.is_file()}
    shown = {name: found for name, found in files.items() if not any(part.startswith(".") for part in name.split("/"))}
    usable = sorted((name, found) for name, found in shown.items() if known(found))
    if not usable:
        others = sorted({found.suffix or found.name for found in shown.values()})
        there = f"only files of other kinds ({', '.join(others[:5])})" if others else "no file at all"
        raise RequestError(f"The folder {folder} holds {there}; files that can be read end in {', '.join(suffixes())}.")
    return usable


def missing(path: Path) -> RequestError:
    """The error for a file that is not there: names it, and the nearest name in its folder."""
    if not path.parent.is_dir():
        parents = [parent for parent in path.parents if parent.is_dir()]
        return RequestError(f"There is no file {path}: its folder does not exist (there is {parents[0]}).")
    guess = nearest(path.name, (sibling.name for sibling in path.parent.iterdir() if not sibling.name.startswith(".")))
    advice = f"; did you mean '{guess}'?" if guess else "."
    return RequestError(f"There is no file {path}{advice}")


def content_hash(path: Path) -> str:
    """Hash of a file's bytes. Within one process, a file that has not been touched is read once.

    Nothing is remembered between processes: sizes and dates can lie, and reading is far cheaper than tokenizing.
    """
    try:
        state = path.stat()
        return _hash(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from error


@lru_cache(maxsize=4096)
def _hash(path: Path, *state: int) -> str:
    return hash_file(path)
