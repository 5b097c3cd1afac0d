"""Decoding: bytes to text, line by line, with invalid UTF-8 replaced and counted or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from foretrain.corpus.compression import open_data
from foretrain.errors import RequestError

Invalid = Literal["replace", "error"]
"""What happens to invalid UTF-8: replaced by U+FFFD and counted, or an error."""

_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Decoder:
    """Turns bytes into valid text.

    Attributes:
        invalid: what happens to invalid UTF-8.
        replaced: how many invalid sequences were replaced so far.
    """

    def __init__(self, invalid: Invalid = "replace") -> None:
        self.invalid = invalid
        self.replaced = 0

    def decode(self, raw: bytes, path: Path | str, place: str) -> str:
        """`raw` as text; `path` and `place` (such as `line 7`) are for the error.

        Raises:
            RequestError: `raw` is not valid UTF-8, and that is an error.
        """
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            if self.invalid == "error":
                raise self._refused(path, place, f"byte {error.start + 1} of it, 0x{raw[error.start]:02x}") from error
            text = raw.decode(errors="replace")
            self.replaced += text.count("\ufffd") - raw.count("\ufffd".encode())
            return text

    def repair(self, text: str, path: Path | str, place: str) -> tuple[str, int]:
        """`text` without lone surrogates (JSON's escapes can write them, UTF-8 cannot), and its size in bytes.

        Raises:
            RequestError: there is one, and that is an error.
        """
        if text.isascii():
            return text, len(text)
        try:
            return text, len(text.encode())
        except UnicodeEncodeError as error:
            if self.invalid == "error":
                found = f"the lone surrogate U+{ord(text[error.start]):04X}"
                raise self._refused(path, place, found) from error
        fixed = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
        self.replaced += fixed.count("\ufffd") - text.count("\ufffd")
        return fixed, len(fixed.encode())

    @staticmethod
    def _refused(path: Path | str, place: str, found: str) -> RequestError:
        return RequestError(
            f"{path}, {place}: the text is not valid UTF-8 ({found}). Convert the file to UTF-8, or set "
            "'invalid: replace' for this domain to put U+FFFD in place of what is invalid."
        )


def read_lines(path: Path, decoder: Decoder) -> Iterator[tuple[int, str]]:
    r"""Every line of a text file with its number from 1, its end (`\n` or `\r\n`) taken off; streaming.

    A byte-order mark at the start is dropped.

    Raises:
        RequestError: unreadable or damaged file, a file in UTF-16, or invalid UTF-8 where that is an error.
    """
    with open_data(path) as handle:
        for number, raw in enumerate(handle, 1):
            if number == 1:
                raw = _without_mark(raw, path)
            if raw.endswith(b"\n"):
                raw = raw[:-2] if raw.endswith(b"\r\n") else raw[:-1]
            try:
                yield number, raw.decode()
            except UnicodeDecodeError:
                yield number, decoder.decode(raw, path, f"line {number}")


def _without_mark(raw: bytes, path: Path) -> bytes:
    encoding = _OTHER_MARKS.get(raw[:2])
    if encoding is not None:
        raise RequestError(f"{path} is encoded in {encoding}; convert it to UTF-8 (iconv -f {encoding} -t UTF-8).")
    return raw.removeprefix(_MARK)
