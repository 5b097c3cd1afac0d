"""A score that came with the documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from foretrain.corpus.document import Document
from foretrain.corpus.scorers.base import Scorer
from foretrain.errors import RequestError, nearest
from foretrain.parts import Facts


class Field(Scorer):
    """A number in each record: any of its fields, or one of its scores (`score_NAME`, or `NAME` in `scores`)."""

    kind: Literal["field"] = "field"
    facts: ClassVar[Facts] = Facts(answers="how good is a document? as good as its record says")

    field: str
    """Name of the field."""

    def scores(self, documents: Iterable[Document]) -> Iterator[float]:
        for document in documents:
            yield self._number(document)

    def _number(self, document: Document) -> float:
        numbers = {**document.metadata, **document.scores}
        if self.field not in numbers:
            guess = nearest(self.field, numbers)
            advice = f" Did you mean '{guess}'?" if guess else ""
            raise RequestError(
                f"score: document {document.id} of {document.source} has no field '{self.field}'; the fields there "
                f"are: {', '.join(numbers) or 'none'}.{advice}"
            )
        value = numbers[self.field]
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise RequestError(
                f"score: the field '{self.field}' of document {document.id} of {document.source} should be a finite "
                f"number, but is {value!r}. Leave such documents out by `where`, or name another field."
            )
        return number
