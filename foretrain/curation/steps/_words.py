"""Words as datatrove's blocks ask for them, without a model for each language."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from foretrain.curation.needed import require
from foretrain.errors import RequestError

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
PLAIN = "plain"


def tokens(text: str) -> list[str]:
    """Words (runs of letters and digits, apostrophes inside), and each other sign that is no space."""
    return _WORD.findall(text)


@cache
def word_tokenizer(language: str = PLAIN) -> Any:
    """What splits text into words: `tokens` for `plain`, or datatrove's own choice for a language (`jpn`, `tha`).

    Raises:
        RequestError: datatrove knows no such language, or the package that it uses for it is not installed.
    """
    module = require("datatrove.utils.word_tokenizers")
    if language == PLAIN:
        return _plain(module.WordTokenizer)
    try:
        return module.load_word_tokenizer(language)
    except ValueError as error:
        raise RequestError(
            f"words: datatrove splits no language '{language}' into words. Languages are written as `eng` or `jpn` "
            f"(ISO 639-3); `{PLAIN}` goes by letters and serves all that put spaces between words."
        ) from error
    except ImportError as error:
        raise RequestError(f"words: '{language}' needs a package that is not installed: {error}") from error


@cache
def _plain(base: Any) -> Any:
    class Plain(base):
        """Words by letters alone."""

        def word_tokenize(self, text: str) -> list[str]:
            return tokens(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return Plain(PLAIN)
