"""Reserved ids: the layout of every tokenizer that foretrain makes, and how one is assembled from its merges.

    ids 0 to 127     special tokens: <|endoftext|> (0), <|pad|> (1), <|mask|> (2), <|reserved_3|> to <|reserved_127|>
    ids 128 to 383   the 256 bytes: id 128 + b is byte b
    ids 384 on       merges, in the order they were learnt

They stand in front so that an id means the same at any vocabulary size. `<|endoftext|>` ends every document and so
also begins the next one (it is `eos` and `bos`): a model asked to write from nothing starts from a token it knows.

The reserved ones are given out from both ends, and refused where the ends meet:

    from the first on   named tokens (`S`, a mode of `ul2`): a part asks for them by `special_tokens`, and the tokenizer
                        keeps the names, also on disk, so that tasks and later runs find the same ids
    from the last down  sentinels, one for each span that is cut out of a text: the first sentinel is the last id

Pretrained tokenizers with spare special tokens of the usual names (`<|reserved_special_token_0|>`, `<unused7>`,
`[unused7]`, `<extra_id_7>`) have their ids given out alike.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerFast

from foretrain.errors import RequestError, unknown_name
from foretrain.tokens.tokenizer import NAMED, TextTokenizer

RESERVED = 128
"""Special ids that every tokenizer made here holds from day one."""
BYTES = 256
END, PAD, MASK = "<|endoftext|>", "<|pad|>", "<|mask|>"

_SPARE = re.compile(r"<\|reserved(_special_token)?_\d+\|>|<extra_id_\d+>|<unused\d+>|\[unused\d+\]")


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


def reserved_ids(tokenizer: TextTokenizer) -> list[int]:
    """Ids that stand for nothing until they are given out, lowest first."""
    return sorted(number for token, number in tokenizer.fast.get_vocab().items() if _SPARE.fullmatch(token))


def with_named(tokenizer: TextTokenizer, names: Iterable[str]) -> TextTokenizer:
    """The tokenizer with these names among its named tokens: new ones have the first reserved ids that are free.

    Names that it has keep their ids. It stays the same tokenizer to hashes: its ids of text do not change.

    Raises:
        RequestError: there are more names than reserved ids.
    """
    known = tokenizer.named
    new = [name for name in dict.fromkeys(names) if name not in known]
    if not new:
        return tokenizer
    free = [number for number in reserved_ids(tokenizer) if number not in known.values()]
    if len(free) < len(new):
        raise RequestError(
            f"The recipe's parts ask for the special tokens {', '.join([*known, *new])}, and the tokenizer has only "
            f"{len(free) + len(known)} reserved ids. Take a tokenizer that foretrain makes (it has {RESERVED - 3}), or "
            "fewer such tokens."
        )
    fast = copy.deepcopy(tokenizer.fast)
    fast.init_kwargs[NAMED] = {**known, **dict(zip(new, free, strict=False))}
    return TextTokenizer(fast)


def named_id(tokenizer: TextTokenizer, name: str) -> int:
    """The id of a named token.

    Raises:
        RequestError: the tokenizer has no such name: nothing asked for it when the model was trained.
    """
    if name not in tokenizer.named:
        known = tokenizer.named
        told = unknown_name("special token", name, known) if known else f"it has none, so there is no '{name}'"
        raise RequestError(f"The model's tokenizer names special tokens for the parts it was trained with: {told}.")
    return tokenizer.named[name]


def sentinel_ids(tokenizer: TextTokenizer, count: int) -> list[int]:
    """The first `count` sentinels: reserved ids from the last one down.

    Raises:
        RequestError: there are fewer that no name has.
    """
    free = [number for number in reserved_ids(tokenizer) if number not in tokenizer.named.values()]
    if len(free) < count:
        raise RequestError(
            f"{count} spans of a text need a sentinel each, and the tokenizer has {len(free)} reserved ids left "
            f"({len(tokenizer.named)} have names). Longer spans, a lower rate or a shorter model.context need fewer; "
            f"tokenizers that foretrain makes have {RESERVED - 3}."
        )
    return free[::-1][:count]
