"""Span corruption: spans cut out of a text, and the objectives that let a decoder write them down again.

The arithmetic is that of T5. Of L tokens, `round(rate * L)` are noise, in `round(noise / span)` spans; noise and the
rest are each cut into that many pieces at random and laid in turn, the rest first. What is given is the text with a
sentinel in the place of each span; what is asked for is each sentinel with the span it stands for. Both end with the
end-of-text token, so that they have

    inputs    (L - noise) + spans + 1 tokens
    targets   noise + spans + 1 tokens

The noise of a suffix denoiser is the end of the text alone, from a place drawn uniformly among those at which its share
is between nothing and twice the rate: as in T5's prefix language model. Neither sentinel nor end is added to it, since
the targets go straight on from the inputs, and the text may go on behind the window.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.models.attention import attention_mask, reading, refuse_deaf
from foretrain.objectives.base import Objective, Targets
from foretrain.objectives.outputs import Outputs, run_model
from foretrain.section import Number, Section
from foretrain.tokens.reserved import named_id, sentinel_ids

if TYPE_CHECKING:
    from foretrain.context import Context

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Noise(Section):
    """What is cut out of a text: a share of it in spans of some length, or its end."""

    rate: Number = Field(gt=0, lt=1)
    """Share of the tokens that are cut out."""
    span: Number | None = Field(None, ge=1)
    """Mean length of the spans; unset: one span, the end of the text, that is `rate` of it on average."""

    @model_validator(mode="after")
    def _suffix(self) -> Noise:
        if self.span is None and self.rate > 0.5:
            raise ValueError("rate: the end of a text is from nothing to twice the rate of it, so at most 0.5")
        return self

    @property
    def suffix(self) -> bool:
        """Whether it is the end of the text."""
        return self.span is None

    def counts(self, length: int) -> tuple[int, int]:
        """Noise tokens and spans of `length` tokens (for a suffix: at most so many tokens, and no sentinel)."""
        if self.span is None:
            return length - self._shortest(length), 0
        noise = min(max(round(length * self.rate), 1), length - 1)
        return noise, min(max(round(noise / self.span), 1), noise, length - noise)

    def size(self, length: int) -> int:
        """Tokens that inputs and targets of `length` tokens have together."""
        return length if self.suffix else length + 2 * self.counts(length)[1] + 2

    def raw_length(self, room: int) -> int:
        """The longest text whose inputs and targets together have at most `room` tokens; 0 where none has."""
        return next((length for length in range(room, 1, -1) if self.size(length) <= room), 0)

    def _shortest(self, length: int) -> int:
        """The shortest prefix of a suffix denoiser; the first token is never asked for."""
        return max(1, round((1 - 2 * self.rate) * (length - 1)))

    def draw(self, length: int, random: np.random.Generator) -> Bools:
        """Which of `length` tokens (two or more) are noise."""
        if self.suffix:
            return np.arange(length) >= random.integers(self._shortest(length), length)
        noise, spans = self.counts(length)
        rest, cut = _pieces(length - noise, spans, random), _pieces(noise, spans, random)
        return np.repeat(np.tile([False, True], spans), np.stack([rest, cut], 1).ravel())

    def example(self, tokens: Ints, noise: Bools, sentinels: Ints, end: int) -> Example:
        """Inputs and targets of a text of which `noise` is cut out."""
        if self.suffix:
            return Example(tokens[~noise], tokens[noise], np.flatnonzero(noise))
        return with_sentinels(tokens, noise, sentinels, end)


@dataclass(frozen=True, slots=True)
class Example:
    """One text with spans cut out.

    Attributes:
        inputs: what is given.
        targets: what is asked for.
        places: where each of the targets stands in the text; -1 for what doesn't.
    """

    inputs: Ints
    targets: Ints
    places: Ints


def with_sentinels(tokens: Ints, noise: Bools, sentinels: Ints, end: int) -> Example:
    """A text with a sentinel in the place of each span of noise, and each sentinel with its span. It begins without."""
    begins = noise & ~np.append(False, noise[:-1])
    turns = ~noise & ~np.append(False, ~noise[:-1])
    # Each stretch of the rest stands before a span; one at the end of the text stands before none.
    turns &= np.cumsum(turns) <= begins.sum()
    given, _ = _marked(tokens, ~noise, begins, sentinels, end)
    asked, places = _marked(tokens, noise, turns, sentinels, end)
    return Example(given, asked, places)


def _pieces(tokens: int, pieces: int, random: np.random.Generator) -> Ints:
    """Lengths of `pieces` pieces of `tokens` tokens, each at least one; all ways to cut are equally likely."""
    cuts = np.sort(random.choice(tokens - 1, pieces - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=tokens)


def _marked(tokens: Ints, kept: Bools, marked: Bools, sentinels: Ints, end: int) -> tuple[Ints, Ints]:
    """The tokens that are kept, with the next sentinel in the place of each marked one, and the end; and their places.

    `marked` are first tokens of spans that aren't kept.
    """
    stays = kept | marked
    out = np.where(marked, 0, tokens)
    out[marked] = sentinels[: int(marked.sum())]
    places = np.where(marked, -1, np.arange(len(tokens)))
    return np.append(out[stays], end), np.append(places[stays], -1)


def prefix_mask(prefix: Tensor, length: int) -> Tensor:
    """Bool [rows, 1, length, length]: each of the first `prefix` tokens of a row reads all of these; others are causal.

    Args:
        prefix: int64 [rows].
        length: tokens per row.
    """
    return attention_mask("prefix", length, prefix=prefix, device=prefix.device)


class Denoiser(Noise):
    """Noise, how often it is drawn, and the token that tells the model of it."""

    weight: Number = Field(1.0, ge=0)
    """How many of the rows it is drawn for, relative to the other denoisers."""
    mode: str | None = Field(None, min_length=1)
    """Name of a special token that stands before the inputs."""


class Denoising(Objective):
    """The base of objectives that cut spans out of a text and have a decoder write them after what is left.

    A row is [mode] inputs targets; every token of the inputs reads all of them, and the loss is of the targets alone, a
    mean over all of the batch's, so that a row counts by their number. Each row has one denoiser, drawn by its place in
    the stream, and as many tokens of the text as fill it: the stream gives windows of the longest such text, and what a
    shorter one leaves of its window is not read in this pass.

    `metrics.jsonl` counts, beside the `tokens` that the model reads (inputs, targets and what fills the row up), the
    `raw_tokens` of text in them and the `loss_tokens`; and the latter of each denoiser.
    """

    family: ClassVar[Literal["decoder", "encoder", "vision", "any"]] = "decoder"

    attention: Literal["prefix", "causal"] = "prefix"
    """Whether inputs are read in both directions (`prefix`), or each token by what comes after it alone (`causal`)."""

    _mixture: dict[str, Denoiser] = PrivateAttr(default_factory=dict)
    _modes: list[list[int]] = PrivateAttr(default_factory=list)
    _sentinels: list[int] = PrivateAttr(default_factory=list)
    _end: int = PrivateAttr(-1)
    _length: int = PrivateAttr(0)

    @abstractmethod
    def mixture(self) -> Mapping[str, Denoiser]:
        """The denoisers by name."""

    def _drawn(self) -> dict[str, Denoiser]:
        return {name: denoiser for name, denoiser in self.mixture().items() if denoiser.weight > 0}

    def special_tokens(self) -> list[str]:
        return [denoiser.mode for denoiser in self._drawn().values() if denoiser.mode is not None]

    def _raw_length(self, denoiser: Denoiser, context_length: int) -> int:
        """Tokens of text in a row: the model reads all of it but the last token, which it predicts."""
        return denoiser.raw_length(context_length + 1 - (denoiser.mode is not None))

    def window(self, context_length: int) -> int:
        lengths = {name: self._raw_length(denoiser, context_length) for name, denoiser in self._drawn().items()}
        short = min(lengths, key=lambda name: lengths[name])
        if lengths[short] == 0:
            raise RequestError(
                f"objective '{self.kind}': a context of {context_length} (model.context) has no room for a text of two "
                f"tokens with the spans of '{short}' cut out; make it longer."
            )
        return max(lengths.values())

    def setup(self, context: Context) -> None:
        """Find the special tokens.

        Raises:
            RequestError: there are too few sentinels, no end-of-text token, or documents are to be kept apart.
        """
        if context.recipe.documents == "separate":
            raise RequestError(
                f"objective '{self.kind}' cuts spans out of windows in which documents stand one after the other, as "
                "they come; say `documents: packed`."
            )
        refuse_deaf(context.model, self.attention, f"objective '{self.kind}'")
        tokenizer = context.tokenizer
        if tokenizer.eos is None:
            raise RequestError(
                f"objective '{self.kind}' ends its targets with an end-of-text token, and there is none."
            )
        self._mixture, self._length, self._end = self._drawn(), context.length, tokenizer.eos
        lengths = {name: self._raw_length(each, context.length) for name, each in self._mixture.items()}
        spans = max(each.counts(lengths[name])[1] for name, each in self._mixture.items())
        self._sentinels = sentinel_ids(tokenizer, spans)
        self._modes = [[] if each.mode is None else [named_id(tokenizer, each.mode)] for each in self._mixture.values()]
        for name, each in self._mixture.items():
            noise = each.counts(lengths[name])[0]
            if each.span is not None and noise < each.span:
                context.warn(
                    f"objective '{self.kind}': of the {lengths[name]} tokens that a row holds, '{name}' cuts out "
                    f"{noise}, so its span is shorter than the {each.span:g} asked for; a longer model.context, or "
                    "shorter spans, make it what it says."
                )

    def prepare(self, batch: Batch) -> Batch:
        """Rows of `length` tokens from texts: pure in (seed, position)."""
        denoisers = list(self._mixture.values())
        weights = np.array([each.weight for each in denoisers])
        sentinels = np.array(self._sentinels, np.int64)
        tokens = batch["tokens"].numpy()
        valid = batch["valid"].numpy() if "valid" in batch else np.ones(tokens.shape, bool)
        if "given" in batch:  # metadata
            valid = valid & ~batch["given"].numpy()
        rows = torch.zeros(batch.rows, self._length + 1, dtype=torch.int64)
        counted = torch.zeros(batch.rows, self._length + 1, dtype=torch.bool)
        prefix, chosen, raw = (torch.zeros(batch.rows, dtype=torch.int64) for _ in range(3))
        for row in range(batch.rows):
            random = batch.generator(row, "denoiser")
            number = int(random.choice(len(denoisers), p=weights / weights.sum()))
            text = tokens[row, : self._raw_length(denoisers[number], self._length)]
            noise = denoisers[number].draw(len(text), random)
            found = denoisers[number].example(text, noise, sentinels, self._end)
            given = [*self._modes[number], *found.inputs]
            prefix[row], chosen[row], raw[row] = len(given), number, len(text)
            last = len(given) + len(found.targets)
            rows[row, :last] = torch.tensor([*given, *found.targets])
            # Where validation ends within the text, what is no token of the text is left out.
            judged = np.where(found.places < 0, valid[row, len(text) - 1], valid[row, found.places])
            counted[row, len(given) : last] = torch.from_numpy(judged)
        return batch.with_(
            inputs=rows[:, :-1], labels=rows[:, 1:], mask=counted[:, 1:], prefix=prefix, denoiser=chosen, raw=raw
        )

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        return run_model(model, input_ids=batch["inputs"], **reading(model, self.attention, batch))

    def losses(self, outputs: Outputs, batch: Batch, targets: Targets | None = None) -> Tensor:
        return outputs.token_losses(batch["labels"], batch["mask"], targets)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        each = {
            f"denoiser/{name}/loss_tokens": batch["mask"][batch["denoiser"] == number].sum()
            for number, name in enumerate(self._mixture)
        }
        return {"raw_tokens": batch["raw"].sum(), "loss_tokens": batch["mask"].sum(), **each}
