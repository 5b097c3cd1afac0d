"""Shards of a build: documents on disk between two stages, exactly as they were; and tables of those that were dropped.

A shard between stages is a Parquet file with the columns `id`, `text`, `source`, `metadata` and `scores`; the last two
are JSON, since any record may have any fields. (The shards of the finished corpus have a column for each of them:
`output.py`.) A file has its name only once it is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foretrain import faults
from foretrain.corpus.document import Document
from foretrain.errors import CorruptFile
from foretrain.files import failed_write

DOCUMENT = ("id", "text", "source", "metadata", "scores")
"""Columns of a document between stages."""
DROPPED = ("id", "reason", "bytes", "scores")
"""Columns of a document that a stage dropped."""
_ROWS = 1024
_CHARACTERS = 1 << 23


class TableWriter:
    """Writes rows of text columns to one Parquet file, in pieces; it is there when the `with` has ended, or not at all.

    Args:
        path: the file.
        schema: the columns, as Arrow knows them.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        self.path, self._schema = path, schema
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._rows: list[dict[str, Any]] = []
        self._size = 0
        self._file: Any = None

    def append(self, row: dict[str, Any], size: int = 0) -> None:
        """Add a row; `size` is about how many characters it has."""
        self._rows.append(row)
        self._size += size
        if len(self._rows) >= _ROWS or self._size >= _CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        faults.reach("write")
        self._file.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._size = [], 0

    def __enter__(self) -> TableWriter:
        import pyarrow.parquet as pq

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")
        except OSError as error:
            raise failed_write(f"The file {self.path.name}", self.path.parent, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._flush()
            self._file.close()
            if error is None:
                os.replace(self._temporary, self.path)
        except OSError as fault:
            raise failed_write(f"The file {self.path.name}", self.path.parent, fault) from fault
        finally:
            self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise failed_write(f"The file {self.path.name}", self.path.parent, error) from error


def text_schema(columns: Sequence[str]) -> Any:
    """The Arrow schema of columns that all hold text (`bytes`: numbers)."""
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name == "bytes" else pa.large_string()) for name in columns])


def document_row(document: Document) -> dict[str, Any]:
    """A document as a row between stages."""
    return {
        "id": document.id,
        "text": document.text,
        "source": document.source,
        "metadata": json.dumps(document.metadata, ensure_ascii=False, default=str),
        "scores": json.dumps(document.scores),
    }


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a shard, in order and streaming."""
    for row in read_rows(path):
        yield Document(row["id"], row["text"], row["source"], json.loads(row["metadata"]), json.loads(row["scores"]))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file that a stage wrote.

    Raises:
        CorruptFile: it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=256, columns=columns, use_threads=False):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise CorruptFile(
            f"{path} is damaged or gone ({error}). Delete the folder of its stage, {path.parent.parent}; the same "
            "command makes it again."
        ) from error
