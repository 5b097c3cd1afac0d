"""Log-likelihoods of completions given prompts: the one measure under most tasks.

A prompt and its completion are encoded as lm-eval does it: white space at the end of the prompt moves to the front of
the completion, both are encoded together, and the completion's ids are those after the prompt's own ids. So a word
that follows a space is the token it would be in running text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.objectives._spans import prefix_mask
from foretrain.tasks.base import Evaluated
from foretrain.tokens.tokenizer import TextTokenizer

Attention = Literal["causal", "prefix"]

LOGITS = 1 << 26
"""Most logits made at once (256 MiB as float32), unless a single row needs more."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt (at least one token) and the completion to be predicted after it, as ids."""

    prompt: list[int]
    completion: list[int]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a subject makes of one completion.

    Attributes:
        log: log-likelihood of the whole completion, in nats.
        tokens: its tokens, all of which are counted in `log`.
        hits: how many of them are the most likely ones.
        truncated: whether something before a token didn't fit the context.
    """

    log: float
    tokens: int
    hits: int
    truncated: bool

    @property
    def greedy(self) -> bool:
        """Whether each token is the most likely one, as greedy decoding would give it."""
        return self.hits == self.tokens


def start(tokenizer: TextTokenizer) -> int:
    """The id that stands before a text that begins from nothing: BOS, or else EOS.

    Raises:
        RequestError: the tokenizer has neither.
    """
    first = tokenizer.bos if tokenizer.bos is not None else tokenizer.eos
    if first is None:
        raise RequestError(
            "The tokenizer has neither a BOS nor an EOS token, so nothing can stand before an empty prompt."
        )
    return first


def encode_pairs(tokenizer: TextTokenizer, texts: Sequence[tuple[str, str]]) -> list[Pair]:
    """Prompts and completions as ids (see the head of this file). An empty prompt becomes the start id.

    Where a tokenizer joins the two across their border, so that the prompt's ids don't begin the whole, the two are
    encoded apart; no character is lost or read twice.

    Raises:
        RequestError: a completion is empty.
    """
    moved = []
    for prompt, completion in texts:
        kept = prompt.rstrip()
        moved.append((kept, prompt[len(kept) :] + completion))
    for prompt, completion in moved:
        if not completion:
            raise RequestError(
                f"After the prompt {prompt[-60:]!r} there is an empty completion, which cannot be scored."
            )
    prompts = tokenizer.encode([prompt for prompt, _ in moved])
    wholes = tokenizer.encode([prompt + completion for prompt, completion in moved])
    pairs = []
    for ids, whole, (_, completion) in zip(prompts, wholes, moved, strict=True):
        if whole[: len(ids)] == ids and len(whole) > len(ids):
            pairs.append(Pair(ids or [start(tokenizer)], whole[len(ids) :]))
        else:
            pairs.append(Pair(ids, tokenizer.encode([completion])[0]))
    return pairs


def log_likelihoods(
    subject: Evaluated, pairs: Sequence[Pair], lead: Sequence[int] = (), attention: Attention = "causal"
) -> list[Likelihood]:
    """The likelihood of each completion after its prompt.

    A prompt too long for the context loses its beginning. A completion longer than the context is read in stretches of
    half a context, each after the half that precedes it, so that all its tokens count.

    Args:
        subject: a decoder.
        pairs: prompts and completions.
        lead: ids that stand before all that is read, and are never lost (a mode token).
        attention: `prefix`: tokens before the completion read one another in both directions, as a model trained with
            such prefixes does; `causal`: each reads those before it.

    Raises:
        RequestError: the subject is an encoder.
    """
    room = subject.context - len(lead)
    rows, owners = [], []
    for number, pair in enumerate(pairs):
        for ids, wanted in _windows(pair, room):
            before = len(lead) + len(ids) - wanted
            places = range(before, before + wanted)
            rows.append(Row([*lead, *ids], places, before if attention == "prefix" else 0))
            owners.append(number)
    logs = [0.0] * len(pairs)
    hits = [0] * len(pairs)
    for number, (log, right) in zip(owners, score_rows(subject, rows), strict=True):
        logs[number] += log
        hits[number] += right
    return [
        Likelihood(log, len(pair.completion), hit, len(pair.prompt) + len(pair.completion) > room + 1)
        for log, hit, pair in zip(logs, hits, pairs, strict=True)
    ]


def pad_right(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of ids as int64 [rows, longest] (0 where there is none) and the mask of where there is one."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    ids[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
    return ids, mask


def _windows(pair: Pair, context: int) -> Iterator[tuple[list[int], int]]:
    """What is read to score a pair: at most context + 1 ids (the last is only predicted), and how many are scored."""
    whole = pair.prompt + pair.completion
    length = len(pair.completion)
    stretch = length if length <= context else max(1, context // 2)
    for begin in range(len(pair.prompt), len(whole), stretch):
        end = min(begin + stretch, len(whole))
        yield whole[max(0, end - 1 - context) : end], end - begin


def batches(sizes: Sequence[tuple[int, int]], tokens: int, places: int = LOGITS) -> Iterator[list[int]]:
    """Numbers of rows of (length, places scored) in batches within both limits, the longest rows first."""
    batch: list[int] = []
    longest = scored = 0
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i][0], -sizes[i][1], i)):
        length, wanted = sizes[i]
        if batch and ((len(batch) + 1) * longest > tokens or scored + wanted > places):
            yield batch
            batch, longest, scored = [], 0, 0
        batch.append(i)
        longest, scored = max(longest, length), scored + wanted
    if batch:
        yield batch


@dataclass(frozen=True, slots=True)
class Row:
    """Ids to be read at once, some of which are scored.

    Attributes:
        ids: at most one more than the context: the last is only predicted.
        scored: their places in `ids`, rising, none of them the first.
        prefix: so many tokens at the beginning read one another in both directions.
    """

    ids: Sequence[int]
    scored: Sequence[int]
    prefix: int = 0


def score_rows(subject: Evaluated, rows: Sequence[Row]) -> list[tuple[float, int]]:
    """Log-likelihood of the scored ids of each row, and how many of them are the most likely ones.

    Raises:
        RequestError: the subject is an encoder.
    """
    if not subject.causal:
        raise RequestError(
            "Likelihoods of completions need a decoder, but this model is an encoder; linear_probe evaluates encoders."
        )
    found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
    sizes = [(len(row.ids) - 1, len(row.scored)) for row in rows]
    for chosen in batches(sizes, subject.batch_tokens, max(1, LOGITS // subject.tokenizer.vocabulary)):
        for number, scored in zip(chosen, _score(subject, [rows[i] for i in chosen]), strict=True):
            found[number] = scored
    return found


def _score(subject: Evaluated, rows: Sequence[Row]) -> list[tuple[float, int]]:
    ids, mask = pad_right([row.ids[:-1] for row in rows])
    places = torch.zeros_like(mask)
    for number, row in enumerate(rows):
        places[number, torch.tensor(row.scored) - 1] = True
    if any(row.prefix > 1 for row in rows):
        mask = prefix_mask(torch.tensor([row.prefix for row in rows]), ids.shape[1])[:, 0]
    logits = subject.logits(ids, mask, places=places)
    labels = torch.tensor([row.ids[place] for row in rows for place in row.scored], device=logits.device)
    logs, hits = [], []
    # Piece by piece: the softmax of all places at once would double what the logits take.
    for piece, label in zip(logits.split(256), labels.split(256), strict=True):
        logs.append(piece.gather(1, label[:, None])[:, 0] - piece.logsumexp(1))
        hits.append(piece.argmax(1) == label)
    wanted = [len(row.scored) for row in rows]
    return [
        (float(log.double().sum()), int(hit.sum()))
        for log, hit in zip(torch.cat(logs).split(wanted), torch.cat(hits).split(wanted), strict=True)
    ]
