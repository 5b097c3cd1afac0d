"""Document: text before it becomes tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus.

    Attributes:
        id: its own id, or `source:number`.
        text: the text, valid Unicode.
        source: the file, data set or generator it came from.
        metadata: every other field of its record.
        scores: figures a curator attached (`score_*` fields or a `scores` mapping), kept beside the text.
    """

    id: str
    text: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
