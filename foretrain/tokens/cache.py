"""The cache of what is made from a corpus: folders named by content, each made once, whoever asks first."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from foretrain.errors import RequestError
from foretrain.files import cache_folder as cache_folder
from foretrain.files import failed_write, sync_folder

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP}


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make(temporary)` if it is not there yet; what bears its name is always complete.

    Other processes that want the same folder wait for the first (by a lock that the kernel drops if that one dies)
    and then find it made. Where a file system has no locks they work side by side, and the first to finish wins.

    Raises:
        RequestError: the cache cannot be written to.
        RunError: writing failed (a full disk).
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RequestError(
            f"The cache {folder.parent} cannot be written: {error.strerror or error}. Name a folder for it in the "
            "environment variable FORETRAIN_CACHE."
        ) from error
    with _locked(lock) as alone:
        if folder.is_dir():
            return folder
        if alone:
            for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        try:
            _make(temporary, folder, make)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _make(temporary: Path, folder: Path, make: Callable[[Path], None]) -> None:
    try:
        temporary.mkdir()
        make(temporary)
        sync_folder(temporary)
        try:
            os.rename(temporary, folder)
        except OSError as error:
            # Another process finished the same work first (a file system without locks): its folder is as good.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        sync_folder(folder.parent)
    except OSError as error:
        raise failed_write(f"The cache entry {folder.name}", folder.parent, error) from error


@contextlib.contextmanager
def _locked(handle: int) -> Iterator[bool]:
    """Holds a lock on an open file; gives whether the file system has such locks."""
    alone = True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            alone = False
        yield alone
    finally:
        os.close(handle)
