"""Feedback in text: completions after prompts, or whole documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.corpus.where import Wanted
from foretrain.errors import RequestError
from foretrain.feedback.base import Feedback, FeedbackSet
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.tasks.items import Item, Wording, load
from foretrain.tasks.likelihood import Pair, encode_pairs
from foretrain.vectors import Vector
from foretrain.wording import wording_of

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.tokens.tokenizer import TextTokenizer


class TextFeedback(Feedback):
    """Texts whose loss under the run's objective is the feedback loss: of completions given prompts, or of documents.

    Only the tokens of completions count. A prompt that is too long for the model loses its beginning; a document that
    is too long is cut into several items.
    """

    kind: Literal["text"] = "text"
    facts: ClassVar[Facts] = Facts(answers="what should the run become good at? predicting these texts")

    prompt: Wording | None = None
    """Field with what is given, or a template such as `Question: {question}`; unset for whole documents."""
    completion: Wording = "text"
    """Field with what should be predicted, or a template."""
    separator: str = " "
    """Stands between the prompt and what follows it."""
    where: dict[str, Wanted] = {}
    """Keep only items whose field has this value, or one of these: `{domain: code}`."""

    def make(self, fields: Mapping[str, Any], place: str) -> Item:
        """The item of one record."""
        completion = wording_of(self.completion, fields, place)
        if not completion.strip():
            raise RequestError(f"{place}: the completion ({self.completion}) is empty, so there is nothing to predict.")
        if self.prompt is None:
            return Item("", completion)
        return Item(wording_of(self.prompt, fields, place) + self.separator, completion)

    def records(self) -> list[Item]:
        """Every item, in the order of the file."""
        return load(self.path, self.make, self.limit, options=self.options, where=self.where)

    def texts(self) -> Iterable[str]:
        return (item.text for item in self.records())

    def open(self, name: str, context: Context) -> TextSet:
        window = context.objective.window(context.length)
        encoded = _encode(self.records(), context.tokenizer, whole=self.prompt is None, window=window)
        if not encoded:
            raise RequestError(
                f"feedback.{name}: no item of {self.path} has a token to predict: whole documents need two tokens or "
                "more, so give longer ones, or a `prompt` with a `completion` after it."
            )
        return TextSet(name, encoded, window, context)


def _encode(items: Sequence[Item], tokenizer: TextTokenizer, *, whole: bool, window: int) -> list[Pair]:
    """Prompts and what counts after them, each pair at most a window long."""
    if not whole:
        pairs = encode_pairs(tokenizer, [(item.given, item.right) for item in items])
        # What is given comes first to be cut; a completion keeps its beginning.
        kept = [(pair.prompt, pair.completion[: window - 1]) for pair in pairs]
        return [Pair(prompt[-(window - len(completion)) :], completion) for prompt, completion in kept]
    found = []
    for ids in tokenizer.encode([item.right for item in items]):
        ids = [*ids, *([] if tokenizer.eos is None else [tokenizer.eos])]
        # Pieces overlap by a token, so that each token but the first is predicted once.
        found += [ids[start : start + window] for start in range(0, len(ids) - 1, window - 1)]
    return [Pair(piece[:1], piece[1:]) for piece in found]


class TextSet(FeedbackSet):
    """Encoded items, a window each, of whose tokens those of completions count.

    Attributes:
        tokens: int64 [items, window], padded; `valid`: bool of the same shape, the tokens that count.
    """

    def __init__(self, name: str, pairs: Sequence[Pair], window: int, context: Context) -> None:
        self.name, self.items, self.context = name, len(pairs), context
        self._pairs, self._window = pairs, window
        self.tokens = torch.zeros(len(pairs), window, dtype=torch.int64)
        self.valid = torch.zeros(len(pairs), window, dtype=torch.bool)
        for row, pair in enumerate(pairs):
            before, end = len(pair.prompt), len(pair.prompt) + len(pair.completion)
            self.tokens[row, :end] = torch.tensor([*pair.prompt, *pair.completion])
            self.valid[row, before:end] = True

    def batch(self, step: int, rows: int) -> Batch:
        """This rank's share of the items drawn at a step, prepared by the run's objective.

        Every rank has equally many rows; with fewer items than ranks some have none that counts.
        """
        group = self.context.group
        generator = torch.Generator().manual_seed(seed_from(self.context.seed, "feedback", self.name, step))
        drawn = torch.randperm(self.items, generator=generator)[: min(rows, self.items)]
        share = -(-len(drawn) // group.world)
        mine = drawn[group.rank * share : (group.rank + 1) * share]
        # As long as the longest of them, on every rank: most items are far shorter than a window.
        longest = int(self.valid[drawn].any(0).nonzero().max()) + 1
        tokens, valid = self.tokens[mine, :longest], self.valid[mine, :longest]
        if (missing := share - len(mine)) > 0:
            tokens = torch.cat([tokens, self.tokens[:1, :longest].expand(missing, -1)])
            valid = torch.cat([valid, torch.zeros(missing, valid.shape[1], dtype=torch.bool)])
        return self._prepared(tokens, valid, step)

    def gradient(self, step: int, rows: int, names: Sequence[str]) -> tuple[Vector, float]:
        batch = self.batch(step, rows)
        count = self._count(batch)
        return self.context.learner.gradient_of(
            lambda piece: self._losses(piece).sum() / count, list(batch.micro(self.context.micro)), names
        )

    @torch.no_grad()
    def loss(self, step: int, rows: int) -> float:
        batch, learner = self.batch(step, rows), self.context.learner
        with learner.exact(), learner.evaluating():
            total = sum(float(self._losses(piece).sum()) for piece in batch.micro(self.context.micro))
        return self.context.group.sum(total)[0] / self._count(batch)

    def halves(self) -> tuple[TextSet, TextSet]:
        if self.items < 2:
            super().halves()
        middle = self.items // 2
        first, second = self._pairs[:middle], self._pairs[middle:]
        return (
            TextSet(self.name, first, self._window, self.context),
            TextSet(self.name, second, self._window, self.context),
        )

    def _prepared(self, tokens: Tensor, valid: Tensor, step: int) -> Batch:
        rows = torch.arange(len(tokens))
        tensors = {"tokens": tokens, "valid": valid, "domain": torch.zeros_like(rows)}
        seed = seed_from(self.context.seed, "feedback batch", self.name)
        batch = Batch(tensors, seed=seed, step=step, positions=rows, domains=(self.name,))
        return self.context.objective.prepare(batch).to(self.context.device)

    def _count(self, batch: Batch) -> float:
        return max(self.context.group.sum(batch["mask"].sum())[0], 1.0)

    def _losses(self, piece: Batch) -> Tensor:
        objective = self.context.objective
        with self.context.learner.autocast():
            return objective.losses(objective.forward(self.context.learner.model, piece), piece)
