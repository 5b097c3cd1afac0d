"""The tokenizer of an existing model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts
from foretrain.section import ModelPath
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.base import Tokenizer


class Pretrained(Tokenizer):
    """Any Hugging Face tokenizer that has a fast form (a `tokenizer.json`)."""

    kind: Literal["pretrained"] = "pretrained"
    path: ModelPath
    """A folder that holds a tokenizer, or a hub id."""
    eos: str | None = None
    """Token that ends a document; unset: the tokenizer's own `eos_token`, or else its `sep_token`."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the tokenizer may run."""
    facts: ClassVar[Facts] = Facts(answers="what is a token? what it is to the model that training continues from")

    def build(self, texts: Callable[[], Iterator[str]]) -> TextTokenizer:
        tokenizer = TextTokenizer.load(self.path, self.trust_remote_code)
        end = self.eos or tokenizer.fast.eos_token or tokenizer.fast.sep_token
        if end is None:
            raise RequestError(
                f"The tokenizer of '{self.path}' names no token that ends a document (no eos_token, no sep_token). "
                "Name one of its tokens: tokenizer: {kind: pretrained, path: ..., eos: '</s>'}."
            )
        vocabulary = tokenizer.fast.get_vocab()
        if end not in vocabulary:
            raise RequestError(
                f"tokenizer.eos: {unknown_name(f'token in {self.path}', str(end), _special(vocabulary))}"
            )
        if tokenizer.fast.eos_token != end:
            tokenizer.fast.add_special_tokens({"eos_token": end})
            tokenizer = TextTokenizer(tokenizer.fast)
        return tokenizer


def _special(vocabulary: dict[str, int]) -> list[str]:
    """The tokens that look like markers, for a message; a whole vocabulary would not fit in one."""
    return [token for token in vocabulary if len(token) > 2 and token[0] in "<[" and token[-1] in ">]"]
