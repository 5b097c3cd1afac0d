"""Python source: the standard library of this interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from foretrain.corpus.builtin._library import library_hash, modules
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts


class Python(Builtin):
    """Source code of the standard library, one document a module (about 9 MB in 450 documents with Python 3.11).

    Metadata: `module` (`email.message`) and `package` (`email`; a module of its own is its own package). The text
    differs by version of Python; the hash in every result says which one it was.
    """

    kind: Literal["python"] = "python"
    facts: ClassVar[Facts] = Facts(answers="real source code without a download?")

    def sources_hash(self) -> str:
        """That of the standard library."""
        return library_hash()

    def documents(self) -> Iterator[Document]:
        """Every module, in the order of the dotted names."""
        for name, source in modules():
            if source.strip():
                metadata = {"module": name, "package": name.partition(".")[0]}
                yield Document(f"python:{name}", source, "builtin:python", metadata)
