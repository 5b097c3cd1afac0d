"""Writing files so that a reader sees the old content or the new, never half of it; and disk faults in words."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foretrain import faults
from foretrain.errors import CorruptFile, RunError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (a rename is only safe on disk once its folder is)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems cannot flush a folder; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write to a temporary name in the same folder, flush, rename.

    Raises:
        RunError: the disk is full, or the folder can't be written; what was there before is intact.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as handle:
            faults.reach("write")
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise failed_write(f"The file {path}", path.parent, error, needed=len(content)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def written_folder(folder: Path, what: str) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` in one rename if the block ends without an error.

    Args:
        folder: where it goes; what is there is left as it is until then.
        what: subject of a sentence about a failure, such as "The model".

    Raises:
        RunError: the disk is full, or the folder can't be written.
    """
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise failed_write(what, folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file that foretrain wrote.

    Raises:
        CorruptFile: it is no longer JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile(f"The file {path} is damaged: it is not valid JSON ({error}).") from error


def cache_folder() -> Path:
    """Where what can be made again is kept: `$FORETRAIN_CACHE`, or else `~/.cache/foretrain`."""
    named = os.environ.get("FORETRAIN_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "foretrain"


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk of `folder` (or of its nearest parent that exists)."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def show_bytes(count: float) -> str:
    """A number of bytes for people: `512 B`, `1.3 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def failed_write(what: str, folder: Path, error: OSError, needed: int | None = None) -> RunError:
    """A failed write as an error for people: what could not be written, where, why, and how much space there is.

    Args:
        what: subject of the sentence, such as "The checkpoint of step 200".
        folder: where it should have gone.
        error: what the system said.
        needed: bytes it needs, where that is known.
    """
    if error.errno in _FULL:
        try:
            free = f"{show_bytes(free_bytes(folder))} free"
        except OSError:
            free = "free space unknown"
        space = f"{show_bytes(needed)} needed, {free}" if needed is not None else free
        reason = (
            "the file would be larger than this process may write" if error.errno == errno.EFBIG else "the disk is full"
        )
        return RunError(
            f"{what} could not be written to {folder}: {reason} ({space}). Make room and run the same command again."
        )
    return RunError(f"{what} could not be written to {folder}: {error.strerror or error}.")


def finite(value: Any) -> Any:
    """Plain data for JSON, which knows no infinity: figures that are not finite become null, keys become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [finite(child) for child in value]
    return value
