"""How well the model does on a classification of words that all of it is trained for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from foretrain.corpus.items import read_items
from foretrain.corpus.where import Wanted
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.parts import Facts
from foretrain.section import Count, DataPath
from foretrain.tasks._finetuning import Example
from foretrain.tasks._finetuning_task import FineTuningTask
from foretrain.tasks._probing import Judging, divided
from foretrain.tasks.base import Evaluated
from foretrain.tasks.items import Item
from foretrain.wording import look_up


@dataclass(frozen=True, slots=True)
class Tagged(Item):
    """A sentence (`given`, its words with a space between them; `right`, their labels likewise)."""

    words: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def text(self) -> str:
        """The sentence without its labels."""
        return self.given


class FinetuneTokens(FineTuningTask[Tagged]):
    """Fine-tuning for tagging: all weights and a linear layer on the state of each word's first token.

    Attention, training and the choice of the learning rate are those of `finetune`. Words beyond the context are left
    out. Metrics of the words of the items that judge: `accuracy`, `loss`, `spread`.
    """

    kind: Literal["finetune_tokens"] = "finetune_tokens"
    facts: ClassVar[Facts] = Facts(
        paper="Should We Still Pretrain Encoders with Masked Language Modeling?",
        arxiv="2507.00994",
        year=2025,
        answers="how well is a classification of words learned from few labels?",
    )
    path: DataPath
    """A .jsonl or .parquet file of items (.gz and .zst too), or a folder of them."""
    where: dict[str, Wanted] = {}
    """Keep items whose fields have these values (any of them, for a list)."""
    sentences: str | None = None
    """Field with a list of sentences, each with the fields below; unset: each item is one sentence."""
    words: str = "tokens"
    """Field with the list of a sentence's words."""
    labels: str = "tags"
    """Field with the list of their labels."""
    test: Judging = 0.25
    """The items that judge: a share of all sentences (by content hash), or a path of their own."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many sentences (of each path), chosen by their content."""

    def items(self) -> tuple[list[Tagged], list[Tagged]]:
        """The sentences that teach, and those that judge.

        Raises:
            RequestError: one side is empty, or they share a sentence.
        """
        found = self._load(self.path)
        if isinstance(self.test, str):
            train, test = found, self._load(self.test)
            shared = {item.text for item in train} & {item.text for item in test}
            train = [item for item in train if item.text not in shared]
        else:
            train, test = divided(((item.text, item) for item in found), self.test)
        if not train or not test:
            raise RequestError(f"{self.path}: {len(train)} items to learn from and {len(test)} to judge are too few.")
        return train, test

    def _load(self, path: str) -> list[Tagged]:
        found = []
        for number, record in enumerate(read_items(path, where=self.where), 1):
            place = f"{path}, item {number}"
            parts = [record] if self.sentences is None else look_up(record, self.sentences, place)
            found += [self._tagged(part, place) for part in parts]
        if self.limit is not None and self.limit < len(found):
            found = sorted(found, key=lambda item: hash_data([item.words, item.labels]))[: self.limit]
        return found

    def _tagged(self, fields: Mapping[str, Any], place: str) -> Tagged:
        words, labels = look_up(fields, self.words, place), look_up(fields, self.labels, place)
        if not isinstance(words, list) or not isinstance(labels, list) or len(words) != len(labels) or not words:
            raise RequestError(
                f"{place}: '{self.words}' and '{self.labels}' should be lists, one label for each word, and not empty."
            )
        words, labels = tuple(map(str, words)), tuple(map(str, labels))
        return Tagged(" ".join(words), " ".join(labels), words, labels)

    def texts(self) -> Iterable[str]:
        """The sentences that judge."""
        return (item.text for item in self.items()[1])

    def labels_of(self, item: Tagged) -> Sequence[str]:
        """The labels of a sentence's words."""
        return item.labels

    def examples(self, subject: Evaluated, items: Sequence[Tagged], names: Sequence[str]) -> list[Example]:
        """The sentences, each label at its word's first token."""
        # A word is encoded by itself, with the space in front that it has in running text.
        words = [" " * (place > 0) + word for item in items for place, word in enumerate(item.words)]
        encoded = iter(subject.tokenizer.encode(words))
        made = []
        for item in items:
            ids: list[int] = []
            labels, places = [], []
            for label in item.labels:
                own = next(encoded)
                if own and len(ids) < subject.context:
                    labels.append(names.index(label))
                    places.append(len(ids))
                ids += own
            if places:
                made.append(Example(ids[: subject.context], tuple(labels), tuple(places)))
        return made
