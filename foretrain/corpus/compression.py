"""Compression: plain, gzip and zstandard files opened alike, by the last suffix of their name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from foretrain.errors import RequestError

SUFFIXES = (".gz", ".zst")
"""Suffixes that say how a file is compressed; what stands before them says what it holds."""

_BUFFER = 1 << 18
"""Bytes that are read, or unpacked, at once."""


class _ZstdReader(io.RawIOBase):
    """Unpacks a zstandard file piece by piece, frame after frame.

    The library's own stream reader takes the end of the file for the end of the data and so passes over a truncated
    file in silence; this one asks the last frame whether it was complete.
    """

    def __init__(self, handle: BinaryIO) -> None:
        import zstandard

        self._handle = handle
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")
        self._step = 256

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._input = self._input or self._handle.read(self._step)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the last frame is incomplete")
                return 0
            if self._frame is None:
                self._frame = self._unpacker.decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            # All of a piece is unpacked at once, so pieces become small where the data is repetitive.
            growth = max(1, len(self._output) // len(self._input))
            self._step = min(max(_BUFFER // growth, 64), 4 * self._step, _BUFFER)
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size


def _faults() -> tuple[type[Exception], ...]:
    faults: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
    try:
        import zstandard
    except ImportError:
        return faults
    return (*faults, zstandard.ZstdError)


@contextmanager
def open_data(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file, as a buffered stream that is never held whole.

    Raises:
        RequestError: the file cannot be opened, or its compressed data is damaged or cut short; also when that shows
            only while the body of the `with` reads on.
    """
    try:
        with open(path, "rb", buffering=_BUFFER) as handle:
            if path.suffix.lower() == ".gz":
                yield io.BufferedReader(gzip.GzipFile(fileobj=handle), _BUFFER)  # type: ignore[type-var,unused-ignore]
            elif path.suffix.lower() == ".zst":
                yield io.BufferedReader(_ZstdReader(handle), _BUFFER)
            else:
                yield handle
    except _faults() as error:
        raise RequestError(
            f"{path} is damaged: its compressed data cannot be read to the end ({error}). It was probably cut short "
            "while it was copied or downloaded, or it is not compressed the way its name says; fetch it again."
        ) from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from error
