"""Builtin: a corpus that needs no download: text that ships with the interpreter, or a generator."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import astuple
from functools import lru_cache
from itertools import islice
from typing import ClassVar

from foretrain.corpus.document import Document
from foretrain.parts import Part


class Builtin(Part):
    """A corpus named `builtin:KIND` in a recipe; its fields are the domain's `options`."""

    axis: ClassVar[str] = "builtin"

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Every document, always in the same order."""

    def content_hash(self, limit: int | None = None) -> str:
        """Hash of the documents themselves (the first `limit` of them), with their ids and metadata.

        It is made from what is read and not from the settings: text that ships with the interpreter differs by
        version, and a generator's text by ours.
        """
        return _content_hash(type(self), self.model_dump_json(), limit)


@lru_cache(maxsize=64)
def _content_hash(part: type[Builtin], settings: str, limit: int | None) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for document in islice(part.model_validate_json(settings).documents(), limit):
        digest.update(json.dumps(astuple(document), sort_keys=True).encode())
    return digest.hexdigest()
