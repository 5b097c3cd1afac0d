"""Builtin: a corpus that needs no download: text that ships with the interpreter, or a generator."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import ClassVar

import foretrain
from foretrain.corpus.document import Document
from foretrain.errors import RunError
from foretrain.files import cache_folder, write_atomic
from foretrain.hashing import hash_data, hash_file
from foretrain.parts import Part


class Builtin(Part):
    """A corpus named `builtin:KIND` in a recipe; its fields are the domain's `options`."""

    axis: ClassVar[str] = "builtin"

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Every document, always in the same order."""

    def sources_hash(self) -> str:
        """Hash of the files that the documents are made from; empty for a generator, which reads none."""
        return ""

    def content_hash(self, limit: int | None = None) -> str:
        """Hash of the documents themselves (the first `limit` of them), with their ids and metadata.

        It is made from what is read and not from the settings: text that ships with the interpreter differs by
        version, and a generator's text by ours. For the parts of this package it is kept in the cache, under the hash
        of all that decides it: settings, our code, the interpreter, the files that are read.
        """
        settings = self.model_dump_json()
        if not type(self).__module__.startswith(f"{foretrain.__name__}."):
            return _content_hash(type(self), settings, limit, "")  # what the code of others depends on is not known
        sources = self.sources_hash()
        decided = {"settings": settings, "limit": limit, "sources": sources}
        key = hash_data({"format": 1, "code": _code_hash(), "python": sys.version, **decided})
        kept = cache_folder() / "documents" / key
        with suppress(OSError, UnicodeDecodeError):
            text = kept.read_text(encoding="ascii")
            if re.fullmatch("[0-9a-f]{32}", text):
                return text
        found = _content_hash(type(self), settings, limit, sources)
        with suppress(RunError):  # it is made again, and whoever needs the disk says that it is full
            write_atomic(kept, found)
        return found


@cache
def _code_hash() -> str:
    package = Path(foretrain.__file__).parent
    files = sorted([*(package / "corpus" / "builtin").glob("*.py"), package / "corpus" / "document.py"])
    return hash_data([(path.name, hash_file(path)) for path in (*files, package / "hashing.py")])


@lru_cache(maxsize=64)
def _content_hash(part: type[Builtin], settings: str, limit: int | None, sources: str) -> str:
    # `sources` is there for the cache alone: files may change while a process lives.
    digest = hashlib.blake2b(digest_size=16)
    for document in islice(part.model_validate_json(settings).documents(), limit):
        digest.update(json.dumps(astuple(document), sort_keys=True).encode())
    return digest.hexdigest()
