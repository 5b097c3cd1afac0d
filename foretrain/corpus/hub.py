"""Hugging Face data sets, streamed from the hub or read from a local folder (extra `[hub]`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from foretrain.corpus.document import Document
from foretrain.corpus.inputs import Input
from foretrain.corpus.paths import content_hash
from foretrain.corpus.records import Place, Reader
from foretrain.errors import ForetrainError, RequestError, unknown_name

_OPTIONS = ("name", "split", "revision")


class HubInput(Input):
    """One split of one data set: `hub:OWNER/NAME`, `hub:FOLDER`, or either with `#SPLIT` behind it.

    Options: `name` (the configuration), `split` (default `train`; `#SPLIT` wins) and `revision` (a branch, tag or
    commit). Rows are streamed; nothing is downloaded as a whole.

    Raises:
        RequestError: an option is unknown, or the extra `[hub]` is not installed.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.label = f"hub:{name}"
        for key, value in options.items():
            if key not in _OPTIONS:
                raise RequestError(f"{self.label}: options: {unknown_name('option', str(key), _OPTIONS)}")
            if value is not None and not isinstance(value, str):
                raise RequestError(f"{self.label}: options.{key} should be text (given: {value!r}).")
        self.path, _, split = name.partition("#")
        self.split = split or options.get("split") or "train"
        self.name = options.get("name")
        self.revision = options.get("revision")
        self.folder = Path(self.path).expanduser().resolve() if Path(self.path).expanduser().is_dir() else None
        if self.folder is None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.path):
            raise RequestError(
                f"{self.label}: there is no folder {self.path}, and it is no name of a data set (OWNER/NAME)."
            )
        _library(self.label)

    def documents(self, reader: Reader) -> Iterator[Document]:
        """Every row with text."""
        rows = enumerate(self._open(), 1)
        while True:
            try:
                number, fields = next(rows)
            except StopIteration:
                return
            except ForetrainError:
                raise
            except Exception as error:  # The library raises whatever its readers do.
                raise self._failed(error) from error
            document = reader.document(dict(fields), Place(self.label, "row", number), self.label)
            if document is not None:
                yield document

    def identity(self, limit: int | None) -> Any:
        """The content of a local folder by its hash, a data set on the hub by its commit."""
        choice = {"name": self.name, "split": self.split}
        if self.folder is not None:
            files = sorted(path for path in self.folder.rglob("*") if path.is_file())
            return [choice, [[path.relative_to(self.folder).as_posix(), content_hash(path)] for path in files]]
        from huggingface_hub import HfApi

        try:
            commit = HfApi().dataset_info(self.path, revision=self.revision).sha
        except Exception as error:
            raise self._failed(error) from error
        return [choice, self.path, commit]

    def _open(self) -> Any:
        library = _library(self.label)
        try:
            source = str(self.folder) if self.folder is not None else self.path
            data = library.load_dataset(source, name=self.name, revision=self.revision, streaming=True)
        except Exception as error:
            raise self._failed(error) from error
        if self.split not in data:
            raise RequestError(f"{self.label}: {unknown_name('split', self.split, map(str, data))}")
        return data[self.split]

    def _failed(self, error: Exception) -> RequestError:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        return RequestError(f"{self.label} cannot be read ({type(error).__name__}: {first}).")


def _library(label: str) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise RequestError(f"{label} needs the extra [hub]: pip install 'foretrain[hub]'.") from error
    return datasets
