"""Log-likelihoods of completions given prompts: the one measure under most tasks.

A prompt and its completion are encoded as lm-eval does it: white space at the end of the prompt moves to the front of
the completion, both are encoded together, and the completion's ids are those after the prompt's own ids. So a word
that follows a space is the token it would be in running text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.tasks.base import Evaluated
from foretrain.tokens.tokenizer import TextTokenizer

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


def log_likelihoods(subject: Evaluated, pairs: Sequence[Pair]) -> list[Likelihood]:
    """The likelihood of each completion after its prompt.

    A prompt too long for the context loses its beginning. A completion longer than the context is read in stretches of
    half a context, each after the half that precedes it, so that all its tokens count.

    Raises:
        RequestError: the subject is an encoder.
    """
    if not subject.causal:
        raise RequestError(
            "Likelihoods of completions need a decoder, but this model is an encoder; linear_probe evaluates encoders."
        )
    windows = [(number, *window) for number, pair in enumerate(pairs) for window in _windows(pair, subject.context)]
    logs = [0.0] * len(pairs)
    hits = [0] * len(pairs)
    sizes = [(len(ids) - 1, wanted) for _, ids, wanted in windows]
    for chosen in batches(sizes, subject.batch_tokens, max(1, LOGITS // subject.tokenizer.vocabulary)):
        batch = [windows[i] for i in chosen]
        found = _score(subject, [ids for _, ids, _ in batch], [wanted for _, _, wanted in batch])
        for (number, _, _), (log, right) in zip(batch, found, strict=True):
            logs[number] += log
            hits[number] += right
    return [
        Likelihood(log, len(pair.completion), hit, len(pair.prompt) + len(pair.completion) > subject.context + 1)
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


def _score(subject: Evaluated, rows: Sequence[list[int]], wanted: Sequence[int]) -> list[tuple[float, int]]:
    """Log-likelihood of the last `wanted` ids of each row, and how many of them are the most likely ones."""
    ids, mask = pad_right([row[:-1] for row in rows])
    lengths = mask.sum(1, keepdim=True)
    places = mask & (torch.arange(mask.shape[1]) >= lengths - torch.tensor(wanted)[:, None])
    logits = subject.logits(ids, mask, places=places)
    labels = torch.tensor(
        [token for row, n in zip(rows, wanted, strict=True) for token in row[-n:]], device=logits.device
    )
    logs, hits = [], []
    # Piece by piece: the softmax of all places at once would double what the logits take.
    for piece, label in zip(logits.split(256), labels.split(256), strict=True):
        logs.append(piece.gather(1, label[:, None])[:, 0] - piece.logsumexp(1))
        hits.append(piece.argmax(1) == label)
    sums = [
        (float(log.double().sum()), int(hit.sum()))
        for log, hit in zip(torch.cat(logs).split(list(wanted)), torch.cat(hits).split(list(wanted)), strict=True)
    ]
    return sums
