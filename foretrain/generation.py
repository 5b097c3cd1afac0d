"""Generation: texts continued token by token, in batches.

What a prompt becomes depends on the subject, the prompt and the settings alone: not on the other prompts of its batch
(up to rounding of the logits). Each row draws from a generator of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.tasks.base import Evaluated
from foretrain.tasks.likelihood import pad_right, start
from foretrain.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Generated:
    """What one prompt was continued with.

    Attributes:
        prompt: what was given.
        text: the continuation, up to the stop string (which is left out) or the end.
        ids: the tokens drawn, the end-of-text token left out.
        ended: `eos`: the model ended it; `stop`: a stop string came; `length`: as many tokens as were asked for.
        truncated: whether the prompt and continuation outgrew the context, so that their beginning was not read.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    ended: Literal["eos", "stop", "length"]
    truncated: bool

    def plain(self) -> dict[str, str]:
        """The prompt and its continuation, as listings and result files show them."""
        return {"prompt": self.prompt, "text": self.text}


@dataclass
class _Row:
    """A prompt and what it has become so far."""

    prompt: str
    ids: list[int]
    given: int
    random: np.random.Generator
    ended: Literal["eos", "stop", "length"] | None = None
    generated: list[int] = field(default_factory=list)


def generate(
    subject: Evaluated,
    prompts: Sequence[str],
    *,
    tokens: int = 128,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> list[Generated]:
    """Continue each prompt.

    Reserved tokens are never drawn, except the end of the text. A text that outgrows the context loses its beginning,
    half a context at a time.

    Args:
        subject: a decoder.
        prompts: texts; an empty one starts from the start token.
        tokens: most tokens to draw for each.
        temperature: 0 takes the most likely token; 1 draws from the model's own distribution.
        top_k: draw only from this many of the most likely tokens.
        top_p: draw only from the fewest tokens that hold at least this share of the probability that `top_k` leaves.
        seed: decides what is drawn, with the prompt's text; equal prompts in one call get different draws.
        stop: texts that end a continuation.

    Raises:
        RequestError: the subject is an encoder, or a setting is out of its range.
    """
    _check(subject, tokens, temperature, top_k, top_p, stop)
    seen: Counter[str] = Counter()
    rows = []
    for prompt, ids in zip(prompts, subject.tokenizer.encode(prompts) if prompts else [], strict=True):
        random = np.random.Generator(np.random.Philox(key=seed_from(seed, "generate", prompt, seen[prompt])))
        seen[prompt] += 1
        ids = ids or [start(subject.tokenizer)]
        rows.append(_Row(prompt, ids, len(ids), random))
    sampler = _Sampler(subject.tokenizer, temperature, top_k, top_p)
    ending = _Ending(subject.tokenizer, tokens, tuple(stop))
    by_length = sorted(rows, key=lambda row: -len(row.ids))
    while by_length:
        widest = min(subject.context, len(by_length[0].ids) + tokens)
        count = max(1, subject.batch_tokens // widest)
        _continue(subject, by_length[:count], sampler, ending)
        by_length = by_length[count:]
    return [ending.result(row, subject.context) for row in rows]


def window_start(length: int, context: int) -> int:
    """How many tokens of a text of `length` are left out for the rest to fit.

    None while it fits; then half a context at a time, so that a full window needn't be read anew for every token.
    """
    half = max(1, context // 2)
    return 0 if length <= context else -(-(length - context) // half) * half


def forbidden(tokenizer: TextTokenizer, size: int) -> Tensor:
    """Bool [size]: ids that are never drawn: special tokens but EOS, and ids that stand for nothing."""
    added = tokenizer.fast.added_tokens_decoder
    special = {number for number, token in added.items() if token.special} | set(tokenizer.fast.all_special_ids)
    known = set(tokenizer.fast.get_vocab().values()) - special
    if tokenizer.eos is not None:
        known.add(tokenizer.eos)
    mask = torch.ones(size, dtype=torch.bool)
    mask[[number for number in known if number < size]] = False
    return mask


def _check(
    subject: Evaluated, count: int, temperature: float, top_k: int | None, top_p: float | None, stop: Sequence[str]
) -> None:
    if not subject.causal:
        raise RequestError("Generating text needs a decoder, but this model is an encoder.")
    if count < 1:
        raise RequestError(f"tokens should be at least 1 (given: {count}).")
    if not 0 <= temperature < float("inf"):
        raise RequestError(f"temperature should be 0 or more (given: {temperature}).")
    if top_k is not None and top_k < 1:
        raise RequestError(f"top_k should be at least 1 (given: {top_k}).")
    if top_p is not None and not 0 < top_p <= 1:
        raise RequestError(f"top_p should be above 0 and at most 1 (given: {top_p}).")
    if isinstance(stop, str) or not all(stop):
        raise RequestError("stop should be a list of texts, none of them empty.")


def _continue(subject: Evaluated, rows: list[_Row], sampler: _Sampler, ending: _Ending) -> None:
    """Continue rows to their ends. The cache is made anew when a window moves or half of the rows have ended."""
    while rows:
        starts = [window_start(len(row.ids), subject.context) for row in rows]
        ids, mask = pad_right([row.ids[first:] for row, first in zip(rows, starts, strict=True)])
        places = torch.zeros_like(mask)
        places[torch.arange(len(rows)), mask.sum(1) - 1] = True
        cache = subject.cache()
        while True:
            logits = subject.logits(ids, mask, cache, places)
            for row, token in zip(rows, sampler.draw(logits, rows), strict=True):
                ending.add(row, token)
            going = [row for row in rows if row.ended is None]
            moved = any(
                window_start(len(row.ids), subject.context) != first
                for row, first in zip(rows, starts, strict=True)
                if row.ended is None
            )
            if cache is None or moved or 2 * len(going) <= len(rows):
                break
            # An ended row is still read, but as padding: nothing comes of it, and its positions stay in range.
            ids = torch.tensor([row.ids[-1:] for row in rows])
            mask = torch.cat([mask, torch.tensor([[row.ended is None] for row in rows])], 1)
            places = torch.ones_like(ids, dtype=torch.bool)
        rows = going


class _Sampler:
    """Draws one token for each row."""

    def __init__(self, tokenizer: TextTokenizer, temperature: float, top_k: int | None, top_p: float | None) -> None:
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self._forbidden: Tensor | None = None

    def draw(self, logits: Tensor, rows: Sequence[_Row]) -> list[int]:
        """A token id for each row of logits [rows, vocabulary]."""
        if self._forbidden is None:
            self._forbidden = forbidden(self.tokenizer, logits.shape[1]).to(logits.device)
        logits = logits.masked_fill(self._forbidden, -torch.inf)
        if self.temperature == 0:
            return list(logits.argmax(1).tolist())
        # Best first; the k first of the sorted tokens, and those before which less than top_p is spent, stay.
        values, order = (logits.double() / self.temperature).sort(dim=1, descending=True, stable=True)
        if self.top_k is not None:
            values[:, self.top_k :] = -torch.inf
        shares = values.softmax(1)
        if self.top_p is not None:
            shares = shares * (shares.cumsum(1) - shares < self.top_p)
        bounds = shares.cumsum(1)
        drawn = torch.tensor([row.random.random() for row in rows], dtype=torch.float64, device=logits.device)
        # The first token whose bound lies above the number drawn; rounding must not lead beyond the last possible one.
        index = torch.searchsorted(bounds, drawn[:, None] * bounds[:, -1:], right=True)
        index = torch.minimum(index, (shares > 0).sum(1, keepdim=True) - 1).clamp_(min=0)
        return list(order.gather(1, index)[:, 0].tolist())


class _Ending:
    """Decides when a row is done, and what its text is."""

    def __init__(self, tokenizer: TextTokenizer, most: int, stop: tuple[str, ...]) -> None:
        self.tokenizer = tokenizer
        self.most = most
        self.stop = stop
        # A stop string that has just been completed lies within as many last tokens as it has bytes.
        self._tail = max((len(text.encode()) for text in stop), default=0) + 4

    def add(self, row: _Row, token: int) -> None:
        """Append a token that was drawn, and end the row where it is due."""
        if row.ended is not None:
            return
        if token == self.tokenizer.eos:
            row.ended = "eos"
            return
        row.ids.append(token)
        row.generated.append(token)
        if (
            self.stop
            and self._cut(self._decode(row.generated[-self._tail :])) is not None
            and self._cut(self._text(row)) is not None
        ):
            row.ended = "stop"
        elif len(row.generated) == self.most:
            row.ended = "length"

    def result(self, row: _Row, context: int) -> Generated:
        """What the row has become."""
        text = self._text(row)
        cut = self._cut(text)
        assert row.ended is not None
        # The last token was drawn but never read.
        read = len(row.ids) - (row.ended != "eos")
        return Generated(
            row.prompt, text if cut is None else text[:cut], tuple(row.generated), row.ended, read > context
        )

    def _cut(self, text: str) -> int | None:
        found = [text.find(stop) for stop in self.stop]
        return min((place for place in found if place >= 0), default=None)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, special=False)

    def _text(self, row: _Row) -> str:
        # Some tokenizers drop a space at the front of what they decode, so the prompt's end is decoded along.
        before = row.ids[: row.given][-8:]
        prefix, whole = self._decode(before), self._decode([*before, *row.generated])
        return whole.removeprefix(prefix) if whole.startswith(prefix) else self._decode(row.generated)
