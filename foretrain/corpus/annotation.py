"""Annotation: what is known of a document, put in front of its text, to be read and not to be learned."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from foretrain.corpus.document import Document
from foretrain.hashing import hash_bytes
from foretrain.section import Section
from foretrain.wording import as_text, check_template, fill, look_up


class Annotation(Section):
    """What stands in front of each training document: `URL: en.wikipedia.org` and two line ends, say."""

    field: str = Field(min_length=1)
    """The field with what is known of a document; of an address (`https://en.wikipedia.org/wiki/Tea`) its host."""
    hashed: bool = False
    """Write eight letters and digits in its place, which tell documents of one value from others and nothing else."""
    wording: Annotated[str, AfterValidator(check_template)] = "URL: {metadata}\n\n"
    """What is put in front, `{metadata}` being the value."""

    def text(self, document: Document) -> str:
        """What stands in front of a document.

        Raises:
            RequestError: the document has no such field.
        """
        place = f"document {document.id}"
        value = as_text(look_up(document.metadata, self.field, place), self.field, place)
        if "://" in value:
            value = urlsplit(value).hostname or value
        return fill(self.wording, {"metadata": hash_bytes(value.encode(), 4) if self.hashed else value}, place)
