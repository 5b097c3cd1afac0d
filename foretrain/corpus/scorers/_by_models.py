"""What scorers share that ask named models: a document's score is made of its losses under each of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr

from foretrain.corpus.document import Document
from foretrain.corpus.scorers._losses import Losses, Reader, pieces
from foretrain.corpus.scorers.base import Scorer
from foretrain.errors import RequestError, unknown_name
from foretrain.section import Count

if TYPE_CHECKING:
    from foretrain.named_models import NamedModel


class ByModels(Scorer):
    """A score from the losses of a ladder of named models, one or many, each with its own tokenizer.

    A document is read by itself, in windows one after the other. Every model reads a text once, whichever scorers,
    arms and runs ask for it: its losses lie in the cache. All of the ladder is in memory while documents are read.
    """

    window: Count | None = Field(None, gt=1)
    """Tokens a model reads at once; unset: as many as it has positions for, 1024 at most."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` (autocast) for large models on machines that have it."""

    _readers: list[Reader] = PrivateAttr(default_factory=list)

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Names of the models that are asked, in the order of the losses that `score` gets."""

    @abstractmethod
    def score(self, losses: Sequence[Losses]) -> float:
        """The score of a document from its losses under each model.

        Raises:
            RequestError: they do not compare.
        """

    def setup(self, models: Mapping[str, NamedModel]) -> None:
        """Find the models.

        Raises:
            RequestError: the recipe names none of that name.
        """
        for name in self.names():
            if name not in models:
                given = unknown_name("model", name, models).rstrip(".")
                raise RequestError(f"score: {given}. A `score` of kind '{self.kind}' asks what `models:` names.")
        self._readers = [Reader(name, models[name], self.window, self.precision) for name in self.names()]

    def content(self) -> Any:
        """Its settings, and the content of the models in place of their names."""
        plain: Mapping[str, Any] = self.model_dump(mode="json")
        return {"format": 1, **plain, "models": [reader.content for reader in self._readers]}

    def scores(self, documents: Iterable[Document]) -> Iterator[float]:
        for piece in pieces(document.text for document in documents):
            columns = [reader.losses(piece) for reader in self._readers]
            for losses in zip(*columns, strict=True):
                yield self.score(losses)

    def flops(self) -> int:
        return sum(reader.flops for reader in self._readers)
