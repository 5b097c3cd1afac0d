"""Every byte of the text is a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

from foretrain.parts import Facts
from foretrain.tokens.reserved import assemble, byte_level
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.base import Tokenizer


class Byte(Tokenizer):
    """The UTF-8 bytes of the text as ids 128 to 383, behind the 128 reserved ids; nothing to train or to load."""

    kind: Literal["byte"] = "byte"
    facts: ClassVar[Facts] = Facts(
        paper="ByT5: Towards a token-free future with pre-trained byte-to-byte models",
        arxiv="2105.13626",
        year=2021,
        answers="what is a token? a byte",
    )

    def build(self, texts: Callable[[], Iterator[str]]) -> TextTokenizer:
        return assemble([], byte_level(use_regex=False))
