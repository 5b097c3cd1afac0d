"""English reference prose: the language reference and the docstrings that come with this interpreter."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar, Literal

from foretrain.corpus.builtin._library import library_hash, modules
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.document import Document
from foretrain.parts import Facts

_SHORTEST = 400
"""Characters below which a module's prose is no document."""
_LONGEST = 4_000
"""Characters from which on a document ends with its paragraph and another begins."""
_COMMON = re.compile(
    r"\b(?:an?|and|are|be|by|can|for|from|if|in|is|it|not|of|on|or|that|the|this|to|when|which|with)\b"
)


class English(Builtin):
    """English prose on Python: pydoc's topics (the language reference) and the docstrings of the standard library.

    Only whole paragraphs of sentences are kept: code, tables, grammar and lists of names are left out, markup is
    taken off. About 1 MB in 450 documents with Python 3.11. Metadata: `module`, the topic or module that the pieces of
    a long text share (`group: module` keeps them together). The text differs by version of Python; the hash in every
    result says which one it was.
    """

    kind: Literal["english"] = "english"
    facts: ClassVar[Facts] = Facts(answers="real English text without a download?")

    def sources_hash(self) -> str:
        """That of the standard library."""
        return library_hash()

    def documents(self) -> Iterator[Document]:
        """Every document: topics first, then modules, each in the order of their names."""
        yield from _documents()


@lru_cache(maxsize=1)
def _documents() -> tuple[Document, ...]:
    """Parsing the library takes some seconds, so it is done once in a process."""
    found: list[Document] = []
    seen: set[str] = set()
    for name, texts in (*_topics(), *_docstrings()):
        # Topics repeat sections of each other, and classes the docstrings of their bases.
        fresh = [paragraph for text in texts for paragraph in paragraphs(text) if paragraph not in seen]
        fresh = list(dict.fromkeys(fresh))
        seen.update(fresh)
        for number, piece in enumerate(_pieces(fresh)):
            found.append(Document(f"english:{name}:{number}", piece, "builtin:english", {"module": name}))
    return tuple(found)


def _topics() -> Iterator[tuple[str, list[str]]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # Some slim installations leave it out; the docstrings are the larger part.
        return
    for name in sorted(topics):
        yield f"topic.{name}", [topics[name]]


def _docstrings() -> Iterator[tuple[str, list[str]]]:
    for name, source in modules():
        if '"""' not in source and "'''" not in source:
            continue
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        yield name, list(_inside(tree))


def _inside(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """The docstrings of a module, its classes and functions and their methods, in the order of the source."""
    docstring = ast.get_docstring(node)
    if docstring:
        yield docstring
    if isinstance(node, ast.Module | ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _inside(child)


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a reference text that are sentences, each on one line and without markup."""
    for block in re.split(r"\n[ \t]*\n", textwrap.dedent(text)):
        lines = [line.strip() for line in block.splitlines() if not re.fullmatch(r"\s*([*=~^#-])\1{2,}\s*", line)]
        paragraph = _plain(" ".join(lines))
        if _is_prose(paragraph):
            yield paragraph


def _plain(text: str) -> str:
    text = re.sub(r":[a-z:]+:`~?([^`]+)`", r"\1", text)  # :class:`X`
    text = re.sub(r"`+([^`']*)[`']+", r"\1", text)  # `x`, ``x``, `x'
    text = re.sub(r"(?<!\w)\*{1,2}([^*\s][^*]*)\*{1,2}(?!\w)", r"\1", text)  # *x*, **x**
    text = re.sub(r"\s*\[\d+\](?=[\s.,;:)]|$)", "", text)  # footnote marks
    text = re.sub(r"^([-*+•]|\d+[.)]|\(\d+\)|[a-z]\))\s+", "", text)  # marks of lists
    return re.sub(r"\s+", " ", text.replace("::", ":")).strip()


def _is_prose(text: str) -> bool:
    words = text.split()
    if len(words) < 8 or not text[0].isalpha() or not text[0].isupper() or text[-1] not in ".!?:":
        return False
    if any(mark in text for mark in (">>>", "...", "->", "==", "+-", " = ", "|", "{", "def ", "(self", "Copyright")):
        return False
    plain = [word for word in words if word.strip("\"'.,;:()!?").isalpha()]
    if len(plain) < 0.75 * len(words):
        return False
    return len(_COMMON.findall(text.lower())) >= 0.15 * len(words)


def _pieces(listed: list[str]) -> Iterator[str]:
    """Documents of whole paragraphs, at least 400 characters each: a shorter rest joins the piece before it."""
    pieces: list[list[str]] = [[]]
    for paragraph in listed:
        if sum(map(len, pieces[-1])) >= _LONGEST:
            pieces.append([])
        pieces[-1].append(paragraph)
    if len(pieces) > 1 and sum(map(len, pieces[-1])) < _SHORTEST:
        pieces[-2:] = [pieces[-2] + pieces[-1]]
    for piece in pieces:
        text = "\n\n".join(piece)
        if len(text) >= _SHORTEST:
            yield text
