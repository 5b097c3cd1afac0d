"""What built-ins that are made from other text share: where it is, how it is read, and how it is divided into parts."""

from __future__ import annotations

from collections.abc import Iterator

from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.corpus.inputs import open_path
from foretrain.corpus.records import Reader
from foretrain.hashing import hash_data, seed_from
from foretrain.section import DataPath


class OfText(Builtin):
    """A corpus that is made from the documents of another one."""

    of: DataPath = "builtin:english"
    """The text: `builtin:NAME`, `data:FILE`, or an absolute path."""
    text: str = "text"
    """The field that holds its text, or a template."""

    def sources_hash(self) -> str:
        """Hash of the text that it is made from."""
        return hash_data([entry.identity(None) for entry in open_path(self.of)])

    def sources(self) -> Iterator[Document]:
        """The documents of the text, in its order."""
        reader = Reader(self.text)
        for entry in open_path(self.of):
            yield from entry.documents(reader)


def place_of(document: Document, name: str) -> float:
    """Where a document lies between 0 and 1, for the parts of the built-in `name`.

    It is the place of its module in `builtin:english`, so that no module is in two parts.
    """
    return seed_from(name, "part", str(document.metadata.get("module", document.id))) / 2**63
