"""Builtin: a corpus that needs no download: text that ships with the interpreter, or a generator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from foretrain.corpus.document import Document
from foretrain.parts import Part


class Builtin(Part):
    """A corpus named `builtin:KIND` in a recipe; its fields are the domain's `options`."""

    axis: ClassVar[str] = "builtin"

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Every document, always in the same order."""
