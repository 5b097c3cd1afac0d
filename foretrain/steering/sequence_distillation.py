"""Learn from text that a teacher writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain import flops
from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.files import cache_folder, read_json, write_json
from foretrain.hashing import hash_data, seed_from
from foretrain.parts import Facts
from foretrain.section import Count, Number
from foretrain.steering._places import Reshuffled
from foretrain.steering.base import Steering
from foretrain.subject import Subject
from foretrain.tokens.cache import made_once

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.named_models import Reference

FORMAT = 1
"""Version of what is kept; part of every name in the cache."""
ROWS = 128
"""Windows that are written at once."""


class SequenceDistillation(Steering):
    """Sequence-level distillation: text sampled from a teacher stands in the place of a share of the run's windows.

    Before the first step, the teacher (an ensemble: by the mean of its members' logits) writes `tokens` tokens without
    a prompt: windows that begin with the end of a document, token by token from its distribution at `temperature`. They
    are kept in the cache by the content of the teacher, the same for every seed and run. In the run one window, at a
    regular distance, in each stretch of 1 / `share` is one of these, pass by pass, each time shuffled anew; replaced
    rows keep the domain of the row that was there.

    Unlike a teacher's distributions over the training text, which it may know by heart, what it writes says what it
    makes of the language: that is how an ensemble of overfitted models is passed on to one student. With
    `distillation` beside it, the student gets the teacher's distributions over this text too.

    Figures: once, with the first step, `one_off_flops`: what writing cost, whenever it was done.
    """

    modality: ClassVar[str] = "text"
    kind: Literal["sequence_distillation"] = "sequence_distillation"
    facts: ClassVar[Facts] = Facts(
        paper="Sequence-Level Knowledge Distillation",
        arxiv="1606.07947",
        year=2016,
        answers="mix: what does text that a teacher writes add?",
        overhead="none in the run; before it, a forward pass of the teacher for every token that it writes",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"share": 0.0}

    model: str
    """The teacher: a name of the recipe's `models`; where that is a list, an ensemble."""
    share: Number = Field(0.5, ge=0, le=1)
    """Share of the run's windows that the teacher wrote."""
    tokens: Count = Field(1_000_000, gt=0)
    """How much it writes, in whole windows; a run that needs more reads it again."""
    temperature: Number = Field(1.0, gt=0)
    """Divides the teacher's logits."""

    _context: Any = PrivateAttr(None)
    _windows: Any = PrivateAttr(None)
    _flops: float = PrivateAttr(0.0)
    _order: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Let the teacher write, where it has not yet.

        Raises:
            RequestError: the recipe has no such model, it does not write, or its tokenizer ends no documents.
        """
        teacher = context.named(self.model)
        eos, window = context.tokenizer.eos, context.stream.window
        subjects = [Subject(model, context.tokenizer, context.length) for model in teacher.models]
        if eos is None or not all(subject.causal for subject in subjects):
            raise RequestError(
                f"steering '{self.kind}': the model '{self.model}' cannot write text of its own; name a decoder whose "
                "tokenizer has a token that ends documents."
            )
        count = max(1, self.tokens // context.length)
        content = context.recipe.models[self.model].content()
        named = hash_data([FORMAT, content, count, window, self.temperature, context.learner.precision])
        folder = cache_folder() / "written" / named

        def make(temporary: Path) -> None:
            made, cost = flops.counted(lambda: write(teacher, subjects, eos, count, window, self.temperature))
            np.save(temporary / "windows.npy", made.numpy().astype(np.int32))
            write_json(temporary / "facts.json", {"flops": cost, "windows": count})

        if context.group.main:
            made_once(folder, make)
        context.group.wait()
        self._context = context
        self._windows = np.load(folder / "windows.npy", mmap_mode="r")
        self._order = Reshuffled(len(self._windows), context.seed, self.kind, self.model)
        self._flops = float(read_json(folder / "facts.json")["flops"])

    def replace(self, batch: Batch) -> Batch:
        """The batch with what the teacher wrote at this rank's share of its places."""
        positions = batch.positions.double()
        numbers = (positions * self.share).floor().long()
        rows = (((positions + 1) * self.share).floor().long() > numbers).nonzero()[:, 0]
        items = [self._order[number] for number in numbers[rows].tolist()]
        tokens = batch["tokens"].clone()
        tokens[rows] = torch.from_numpy(self._windows[items].astype(np.int64))
        changed = {"tokens": tokens}
        if "valid" in batch:
            changed["valid"] = batch["valid"].index_fill(0, rows, True)
        if "segments" in batch:
            ended = (tokens[rows] == self._context.tokenizer.eos).cumsum(1)
            changed["segments"] = batch["segments"].clone()
            # The token that ends a document belongs to it; the first one stands for a document before the window.
            changed["segments"][rows, 1:] = ended[:, :-1].int()
            changed["segments"][rows, 0] = 0
        return batch.with_(**changed)

    def before_step(self, batch: Batch) -> None:
        """Say what writing cost."""
        if batch.step == 0:
            self._context.record(f"{self.kind}/one_off_flops", self._flops)


@torch.no_grad()
def write(teacher: Reference, subjects: list[Subject], eos: int, count: int, window: int, temperature: float) -> Tensor:
    """Int64 [count, window]: what a teacher writes after the end of a document, token by token."""
    written = []
    for first in range(0, count, ROWS):
        generator = torch.Generator().manual_seed(seed_from("written", first))
        ids = torch.full((min(ROWS, count - first), 1), eos)
        caches = [subject.cache() for subject in subjects]
        for _ in range(window - 1):
            mean = torch.zeros(len(ids), teacher.vocabulary)
            for subject, cache in zip(subjects, caches, strict=True):
                unread = ids if cache is None else ids[:, -1:]
                mean += subject.logits(unread, cache=cache)[:, -1].cpu() / len(subjects)
            drawn = (mean / temperature).softmax(-1).multinomial(1, generator=generator)
            ids = torch.cat([ids, drawn], 1)
        written.append(ids)
    return torch.cat(written)
