"""Scorer: gives every document of a domain a number, by which documents are kept or sorted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from foretrain.corpus.document import Document
from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.named_models import NamedModel


class Scorer(Part):
    """A score of documents. What is good is for whoever uses the score to say (`keep.best`, `order.descending`)."""

    axis: ClassVar[str] = "scorer"
    modality: ClassVar[str] = "text"

    def setup(self, models: Mapping[str, NamedModel]) -> None:
        """See the models that the recipe names, before anything is read.

        Raises:
            RequestError: one that the scorer asks is not among them.
        """

    def content(self) -> Any:
        """Plain data that decides the scores beside the documents: settings, and a hash of all that is read."""
        return self.model_dump(mode="json")

    @abstractmethod
    def scores(self, documents: Iterable[Document]) -> Iterator[float]:
        """The score of each document, a finite number, in order and streaming; of no other document's making.

        Raises:
            RequestError: a document cannot be scored, or something that the scorer reads is missing or wrong.
        """

    def flops(self) -> int:
        """FLOPs of the scores given so far, whenever they were computed; 0 for scorers without matrix products."""
        return 0
