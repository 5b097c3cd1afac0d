"""Labelled texts: read, divided into those that teach and those that judge, and the features of a frozen model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from foretrain.corpus.where import Wanted, without_unused
from foretrain.errors import RequestError
from foretrain.section import Count, DataPath
from foretrain.tasks._probing import Judging, divided
from foretrain.tasks.base import Evaluated, Task
from foretrain.tasks.items import Item, Wording, load
from foretrain.tasks.likelihood import batches, pad_right, start
from foretrain.wording import as_text, look_up, wording_of

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled(Item):
    """A text (`given`) and its label (`right`)."""

    @property
    def text(self) -> str:
        """The text without its label."""
        return self.given


class LabelledTask(Task):
    """A task on labelled texts, some of which teach while the others judge."""

    path: DataPath
    """A .jsonl, .csv or .parquet file of items (.gz and .zst too), a folder of them, or `builtin:NAME`."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set; for `test` too, where that is a path."""
    where: dict[str, Wanted] = {}
    """Keep items whose fields have these values (any of them, for a list)."""
    text: Wording = "text"
    """Field with the text, or a template such as `{title}. {body}`."""
    label: str = "label"
    """Field with the label: text or a number."""
    test: Judging = 0.25
    """The items that judge: a share (by content hash, so that equal texts stay together), or a path of their own."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many items (of each path), chosen by their content."""

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain = without_unused(self, handler)
        if not plain["options"]:  # so that hashes from before there were any stay the same
            del plain["options"]
        return plain

    def make(self, fields: Mapping[str, Any], place: str) -> Labelled:
        """The item of one record."""
        label = as_text(look_up(fields, self.label, place), self.label, place)
        return Labelled(wording_of(self.text, fields, place), label)

    def items(self) -> tuple[list[Labelled], list[Labelled]]:
        """The items that the classifier learns from, and those that judge it.

        Raises:
            RequestError: one side is empty, the training side holds a single label, or the sides share a text.
        """
        found = self._load(self.path)
        if isinstance(self.test, str):
            train, test = found, self._load(self.test)
            shared = {item.given for item in train} & {item.given for item in test}
            if shared:
                raise RequestError(
                    f"{self.path} and {self.test} share {len(shared)} texts, such as {min(shared)[:60]!r}; a probe "
                    "should be judged on texts that it didn't learn from."
                )
        else:
            train, test = divided(((item.given, item) for item in found), self.test)
        if not train or not test:
            raise RequestError(f"{self.path}: {len(train)} items to learn from and {len(test)} to judge are too few.")
        labels = {item.right for item in train}
        if len(labels) < 2:
            raise RequestError(
                f"{self.path}: all items have the label {labels.pop()!r} ('{self.label}'); two are needed."
            )
        return train, test

    def _load(self, path: str) -> list[Labelled]:
        return load(path, self.make, self.limit, options=self.options, where=self.where)

    def texts(self) -> Iterable[str]:
        """The texts of the items that judge."""
        return (item.text for item in self.items()[1])


def pooled(subject: Evaluated, texts: Sequence[str], pool: Literal["mean", "last"]) -> tuple[Floats, list[bool]]:
    """Features float64 [texts, width] of each text, and whether it was too long to be read whole."""
    encoded = [ids or [start(subject.tokenizer)] for ids in subject.tokenizer.encode(texts)]
    rows = [ids[: subject.context] for ids in encoded]
    found: dict[int, Floats] = {}
    for chosen in batches([(len(row), 0) for row in rows], subject.batch_tokens):
        ids, mask = pad_right([rows[i] for i in chosen])
        states = subject.features(ids, mask)
        mask = mask.to(states.device)
        if pool == "mean":
            vectors = (states.double() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            vectors = states[torch.arange(len(chosen)), mask.sum(1) - 1].double()
        found |= dict(zip(chosen, vectors.cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(rows))]), [len(ids) > subject.context for ids in encoded]
