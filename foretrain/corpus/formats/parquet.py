"""Parquet, the columnar format of most published corpora."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from foretrain.corpus.decoding import Decoder
from foretrain.corpus.formats.base import Format, Record
from foretrain.errors import RequestError
from foretrain.parts import Facts

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 256
"""Rows that are turned into Python objects at once."""


class Parquet(Format):
    """Parquet: rows are read in small batches out of one row group after the other."""

    kind: Literal["parquet"] = "parquet"
    facts: ClassVar[Facts] = Facts(answers="how are .parquet files read?")
    unit: ClassVar[str] = "row"
    packed: ClassVar[bool] = False

    def records(self, path: Path, decoder: Decoder) -> Iterator[Record]:
        """Every row with its number from 1; columns of bytes are taken for UTF-8 text."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            # Pages are read as they are needed (no pre-buffer), on this thread: a pool would not survive a fork.
            with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=_ROWS, use_threads=False):
                    for fields in _rows(batch, number, path, decoder):
                        number += 1
                        yield Record(number, fields)
        except (pa.ArrowException, OSError) as error:
            after = f" after row {number}" if number else ""
            raise RequestError(
                f"{path} is not a complete Parquet file, or is damaged: it cannot be read{after} "
                f"({str(error).strip() or type(error).__name__})."
            ) from error


def _rows(batch: pa.RecordBatch, done: int, path: Path, decoder: Decoder) -> list[dict[str, Any]]:
    columns = {name: _values(batch.column(i), done, path, decoder) for i, name in enumerate(batch.schema.names)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: pa.Array, done: int, path: Path, decoder: Decoder) -> list[Any]:
    """The cells of a column; text is decoded here, since Arrow passes over invalid UTF-8 until it is too late."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError:
            column = column.cast(pa.large_binary() if pa.types.is_large_string(kind) else pa.binary())
    values: list[Any] = column.to_pylist()
    return [
        decoder.decode(value, path, f"row {done + i + 1}") if isinstance(value, bytes) else value
        for i, value in enumerate(values)
    ]
