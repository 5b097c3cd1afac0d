"""Records to documents: which field is the text, which are scores, and what is counted on the way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from foretrain.corpus.decoding import Decoder, Invalid
from foretrain.corpus.document import Document
from foretrain.corpus.where import Where
from foretrain.errors import RequestError, nearest
from foretrain.wording import fill, is_template


@dataclass
class Report:
    """What one reading of a corpus came across.

    Attributes:
        documents: documents given out.
        bytes: UTF-8 bytes of their text.
        empty: records without text (or with nothing but white space), passed over.
        replaced: invalid UTF-8 sequences replaced by U+FFFD.
        dropped: documents left out because a `validation` or `steer` path of their domain holds them too.
        splits: documents given to each split.
    """

    documents: int = 0
    bytes: int = 0
    empty: int = 0
    replaced: int = 0
    dropped: int = 0
    splits: dict[str, int] = field(default_factory=dict)


class Place(NamedTuple):
    """Where a record stands: its file (as the user knows it), what is counted there (`line`, `row`), and which one."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


def need_field(fields: dict[str, Any], name: str, place: Place, hint: str = "") -> Any:
    """The value of a field.

    Raises:
        RequestError: there is no such field; names the place, the fields there are, and the nearest of them.
    """
    if name in fields:
        return fields[name]
    guess = nearest(name, fields)
    listing = ", ".join(fields) or "none"
    advice = f" Did you mean '{guess}'?" if guess else ""
    raise RequestError(f"{place}: there is no field '{name}'; the fields here are: {listing}.{advice}{hint}")


def keeps(where: Where | None, fields: dict[str, Any], place: Place) -> bool:
    """Whether a filter keeps a record; without one, all are kept.

    Raises:
        RequestError: the record lacks one of the fields.
    """
    if where is None:
        return True
    for name in where.wanted:
        need_field(fields, name, place, " (It is asked for by 'where'.)")
    return where.keeps(fields)


class Reader:
    """Makes documents of records, by the settings of one domain, and counts.

    Attributes:
        report: what was read so far.
        decoder: turns bytes into text by the same settings.
        where: which records become documents; None for all.
    """

    def __init__(self, text: str = "text", group: str | None = None, invalid: Invalid = "replace") -> None:
        self.text = text
        self.group = group
        self.where: Where | None = None
        self.decoder = Decoder(invalid)
        self.report = Report()

    def document(self, fields: dict[str, Any], place: Place, source: str, text: str | None = None) -> Document | None:
        """The document of one record, or None where its text is empty or `where` passes it over. `fields` is used up.

        Raises:
            RequestError: the field of the text (or of the group) is missing, or the text is not text.
        """
        if not keeps(self.where, fields, place):
            return None
        value = self._take_text(fields, text or self.text, place)
        identity = fields.pop("id", None)
        found = Document(
            id=f"{source}:{place.number}" if identity is None else str(identity),
            text=value,
            source=source,
            scores=_take_scores(fields, place),
            metadata=fields,
        )
        return self._accept(found, place)

    def accept(self, document: Document, place: Place) -> Document | None:
        """Count a document; None where its text is empty or `where` passes it over; without lone surrogates."""
        return self._accept(document, place) if keeps(self.where, document.metadata, place) else None

    def _take_text(self, fields: dict[str, Any], name: str, place: Place) -> str:
        """The text of a record, taken out of `fields`; a template leaves the fields that it is made from."""
        if is_template(name):
            return fill(name, fields, place)
        value = need_field(fields, name, place, " The recipe names the field of the text with 'text: FIELD'.")
        if not isinstance(value, str):
            raise RequestError(
                f"{place}: the field '{name}' should hold text, but holds {_what(value)}. "
                "The recipe names the field of the text with 'text: FIELD'."
            )
        del fields[name]
        return value

    def _accept(self, document: Document, place: Place) -> Document | None:
        if not document.text or document.text.isspace():
            self.report.empty += 1
            return None
        if self.group is not None:
            need_field(document.metadata, self.group, place, " (It is the 'group' of this domain.)")
        text, size = self.decoder.repair(document.text, place.file, f"{place.unit} {place.number}")
        if text is not document.text:
            document = Document(document.id, text, document.source, document.metadata, document.scores)
        self.report.documents += 1
        self.report.bytes += size
        self.report.replaced = self.decoder.replaced
        return document


def _what(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return "nothing (null)" if value is None else names.get(type(value), f"a {type(value).__name__}")


def _take_scores(fields: dict[str, Any], place: Place) -> dict[str, float]:
    """Remove the `scores` mapping and the `score_*` fields, and give them as figures by name; nulls are no figures."""
    scores: dict[str, float] = {}
    if isinstance(fields.get("scores"), dict):
        for name, value in fields.pop("scores").items():
            _add_score(scores, str(name), value, f"scores.{name}", place)
    for key in [key for key in fields if key.startswith("score_")]:
        _add_score(scores, key.removeprefix("score_"), fields.pop(key), key, place)
    return scores


def _add_score(scores: dict[str, float], name: str, value: Any, key: str, place: Place) -> None:
    if value is None or value == "":
        return
    try:
        scores[name] = float(value)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{place}: the score '{key}' should be a number, but is {value!r}.") from error
    if not math.isfinite(scores[name]):
        raise RequestError(f"{place}: the score '{key}' should be a finite number, but is {value!r}.")
