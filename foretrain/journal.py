"""Journal: an append-only file of JSON lines, made so that a resumed run's file equals an uninterrupted run's.

Each record goes to the system as one whole line at once (a few microseconds): a killed process loses none, and someone
who follows the file sees every step. A checkpoint stores `offset()`; resuming calls `truncate(offset)`, which drops
what the killed run wrote after it.

JSON has no NaN and no infinity. Such a value is written as null and named in the record's `not_finite`, for example
`{"step": 7, "loss": null, "not_finite": {"loss": "nan"}}`; `read_journal` puts it back.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from foretrain import faults
from foretrain.errors import CorruptFile, RunError
from foretrain.files import failed_write

_TAIL = 1 << 16


class Journal:
    """One JSON-lines file, opened for appending; for one thread.

    A last line without its end (a lost disk, not a kill) is cut off when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise failed_write(f"The file {path.name}", path.parent, error) from error
        self._size = self._whole_lines()
        os.ftruncate(self._handle, self._size)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record: names to numbers, texts, booleans, None (keys in the given order, floats by repr).

        Raises:
            RunError: the disk is full; the file still holds whole lines only.
        """
        line = encode_record(record).encode() + b"\n"
        try:
            faults.reach("write")
            written = os.write(self._handle, line)
            while written < len(line):
                written += os.write(self._handle, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._size)
            raise failed_write(f"A line of {self.path.name}", self.path.parent, error) from error
        self._size += len(line)

    def offset(self) -> int:
        """Bytes so far, flushed to disk: what a checkpoint stores for `truncate`."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise failed_write(f"The file {self.path.name}", self.path.parent, error) from error
        return self._size

    def truncate(self, offset: int) -> None:
        """Drop what was written after `offset`.

        Raises:
            RunError: the file is shorter than that, or no line ends there: it isn't the file the offset was taken from.
        """
        last = os.pread(self._handle, 1, offset - 1) if 0 < offset <= self._size else b""
        if not 0 <= offset <= self._size or (offset > 0 and last != b"\n"):
            raise RunError(
                f"The file {self.path} ({self._size} bytes) does not go with the checkpoint, which expects the end of "
                f"a line at byte {offset}: it was changed or lost. Put it back, or start the run again with --restart."
            )
        os.ftruncate(self._handle, offset)
        self._size = offset

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _whole_lines(self) -> int:
        """Bytes up to the end of the last whole line."""
        end = os.fstat(self._handle).st_size
        while end > 0:
            start = max(0, end - _TAIL)
            found = os.pread(self._handle, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0


def encode_record(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON (without the line's end): the same text for the same values on every machine.

    Raises:
        TypeError: a value is no number, text, boolean or None (a tensor, say, which would hide a wait for the GPU).
    """
    plain: dict[str, Any] = {}
    odd: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            odd[name] = repr(float(value))
            value = None
        elif not isinstance(value, int | float | str | None):
            raise TypeError(f"{name}: a journal holds numbers, texts, booleans and None, not {type(value).__name__}")
        plain[name] = value
    if odd:
        plain["not_finite"] = odd
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


def decode_record(line: bytes | str) -> dict[str, Any]:
    """The record of one line, non-finite values put back; ValueError if it isn't one."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not a record")
    for name, value in record.pop("not_finite", {}).items():
        record[name] = float(value)
    return record


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All records of a file of JSON lines, a last line without its end left out; an empty list if there is no file.

    Raises:
        CorruptFile: a line is damaged; the message gives its number.
    """
    return list(_records(path)) if path.exists() else []


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield decode_record(line)
            except (ValueError, TypeError, AttributeError) as error:
                raise CorruptFile(f"The file {path} is damaged: line {number} is not a record in JSON.") from error
