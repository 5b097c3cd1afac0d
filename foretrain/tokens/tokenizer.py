"""TextTokenizer: text to ids and back, at the speed of the `tokenizers` library and in the format of `transformers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from foretrain.errors import RequestError
from foretrain.hashing import hash_data

ROLES = ("eos", "bos", "pad", "mask")
NAMED = "named_tokens"
"""Where `tokenizer_config.json` keeps the ids of reserved tokens that have been given names (`reserved.py`)."""


class TextTokenizer:
    """A `transformers` fast tokenizer and a private copy of its engine for encoding corpora.

    The private copy reads special tokens in text as plain text: a corpus that contains the letters `<|endoftext|>`
    gets the ids of those letters, never the end-of-document id. It neither truncates nor pads nor adds tokens.

    Attributes:
        fast: the `transformers` tokenizer, which is what an exported model carries.
        vocabulary: number of embedding rows it needs: its largest id + 1, reserved ids included.
    """

    def __init__(self, fast: PreTrainedTokenizerFast) -> None:
        self.fast = fast
        self._engine = Tokenizer.from_str(fast.backend_tokenizer.to_str())
        self._engine.no_truncation()
        self._engine.no_padding()
        self._engine.encode_special_tokens = True
        self.vocabulary = 1 + max(self._engine.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def eos(self) -> int | None:
        """Id that ends a document."""
        return self._role("eos")

    @property
    def bos(self) -> int | None:
        """Id that a text generated from nothing starts with."""
        return self._role("bos")

    @property
    def pad(self) -> int | None:
        """Id that fills up short rows."""
        return self._role("pad")

    @property
    def mask(self) -> int | None:
        """Id that hides a token from a masked language model."""
        return self._role("mask")

    @property
    def special(self) -> list[int]:
        """Ids that stand for no text: reserved ones, ends, padding, the mask."""
        return sorted(number for number, token in self.fast.added_tokens_decoder.items() if token.special)

    @property
    def named(self) -> dict[str, int]:
        """Ids of the reserved tokens that parts have asked for, by name (`reserved.with_named`)."""
        return dict(self.fast.init_kwargs.get(NAMED) or {})

    def _role(self, role: str) -> int | None:
        found = getattr(self.fast, f"{role}_token_id")
        return None if found is None else int(found)

    @cached_property
    def hash(self) -> str:
        """Hash of what decides its ids: the content of `tokenizer.json` and the special ids; not names or paths."""
        content = json.loads(self._engine.to_str())
        return hash_data({"tokenizer": content, **{role: self._role(role) for role in ROLES}})

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, with no special token added and none recognised in the text; in parallel over texts."""
        encoded = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int], special: bool = True) -> str:
        """The text of some ids; `special`: whether special tokens are written out."""
        text = self.fast.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def save(self, folder: Path) -> None:
        """Write the files that `AutoTokenizer.from_pretrained(folder)` loads."""
        folder.mkdir(parents=True, exist_ok=True)
        self.fast.save_pretrained(folder)

    @classmethod
    def load(cls, path: Path | str, trust_remote_code: bool = False) -> TextTokenizer:
        """The tokenizer of a local folder (given as a `Path`, or as text where there is one) or of a hub id (as text).

        Raises:
            RequestError: there is none, it cannot be read, or it has no fast (`tokenizers`) form.
        """
        local = isinstance(path, Path) or Path(path).is_dir()
        if local and not Path(path).is_dir():
            raise RequestError(f"There is no tokenizer: the folder {path} does not exist.")
        try:
            loaded = AutoTokenizer.from_pretrained(
                str(path), trust_remote_code=trust_remote_code, local_files_only=local
            )
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise RequestError(
                f"No tokenizer can be loaded from '{path}': {reason.rstrip('.')}. It should be a folder with a "
                "tokenizer.json, or the id of such a model on the Hugging Face hub."
            ) from error
        if not isinstance(loaded, PreTrainedTokenizerFast):
            raise RequestError(
                f"The tokenizer of '{path}' is a {type(loaded).__name__}, which runs in Python and has no fast form. "
                "foretrain needs one with a tokenizer.json, as the fast version of a tokenizer writes it."
            )
        return cls(loaded)


def needed(tokenizer: TextTokenizer | None) -> TextTokenizer:
    """The tokenizer of a run on text.

    Raises:
        RequestError: the run has none, since it learns from something else.
    """
    if tokenizer is None:
        raise RequestError("This needs a tokenizer, and the run has none: it does not learn from text.")
    return tokenizer
