"""Reserved ids: the layout of every tokenizer that foretrain makes, and how one is assembled from its merges.

    ids 0 to 127     special tokens: <|endoftext|> (0), <|pad|> (1), <|mask|> (2), <|reserved_3|> to <|reserved_127|>
    ids 128 to 383   the 256 bytes: id 128 + b is byte b
    ids 384 on       merges, in the order they were learnt

They stand in front so that an id means the same at any vocabulary size. `<|endoftext|>` ends every document and so
also begins the next one (it is `eos` and `bos`): a model asked to write from nothing starts from a token it knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerFast

from foretrain.tokens.tokenizer import TextTokenizer

RESERVED = 128
"""Special ids that every tokenizer made here holds from day one."""
BYTES = 256
END, PAD, MASK = "<|endoftext|>", "<|pad|>", "<|mask|>"


def reserved_names() -> list[str]:
    """The special tokens, in the order of their ids."""
    named = [END, PAD, MASK]
    return named + [f"<|reserved_{number}|>" for number in range(len(named), RESERVED)]


def byte_letters() -> list[str]:
    """The printable letter that a byte-level model writes for each byte, by byte (the table of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(BYTES, 2 * BYTES))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(BYTES)]


def assemble(merges: Sequence[tuple[str, str]], pre_tokenizer: PreTokenizer) -> TextTokenizer:
    """The byte-level tokenizer with these merges (pairs of byte letters), in the layout above."""
    tokens = [*reserved_names(), *byte_letters()]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in reserved_names()])
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
    )
    return TextTokenizer(fast)


def byte_level(use_regex: bool) -> PreTokenizer:
    """Text as byte letters; `use_regex` first splits it into words, numbers and runs of space as GPT-2 does."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
