"""Tokenizer: what a recipe says about turning text into ids, before it is trained or loaded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from foretrain.parts import Part

if TYPE_CHECKING:
    from foretrain.tokens.tokenizer import TextTokenizer


class Tokenizer(Part):
    """Describes a tokenizer: `byte`, `bpe` (trained on the corpus) or `pretrained` (loaded)."""

    axis: ClassVar[str] = "tokenizer"
    modality: ClassVar[str] = "text"

    trained: ClassVar[bool] = False
    """Whether it depends on the corpus; then it is cached under its identity and the hash of the training documents."""

    @abstractmethod
    def build(self, texts: Callable[[], Iterator[str]]) -> TextTokenizer:
        """The tokenizer; `texts()` iterates the training documents of the corpus (only read when `trained`)."""

    def identity(self) -> dict[str, Any]:
        """Plain data that, with the training documents, decides the result of training."""
        return self.model_dump(mode="json")
