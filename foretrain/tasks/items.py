"""Items of local tasks: read, taken at most so many of, and put into prompts with worked examples before them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from foretrain.corpus.items import read_items
from foretrain.corpus.where import Value, Wanted, without_unused
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.section import Count, DataPath
from foretrain.tasks.base import Evaluated, Task
from foretrain.tasks.likelihood import Attention, Likelihood, encode_pairs, log_likelihoods
from foretrain.tokens.reserved import named_id
from foretrain.wording import check_template


@dataclass(frozen=True, slots=True)
class Item:
    """What is given and what is right: the item as running text is the one after the other."""

    given: str
    right: str

    @property
    def text(self) -> str:
        """The item as running text."""
        return self.given + self.right


I = TypeVar("I", bound=Item)  # noqa: E741
Wording = Annotated[str, AfterValidator(check_template)]
"""The name of a field, or a template such as `Question: {question}`."""


def load(
    path: str,
    make: Callable[[Mapping[str, Any], str], I],
    limit: int | None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    where: Mapping[str, Value | list[Value]] | None = None,
) -> list[I]:
    """The items of a file, in its order; `make(fields, place)` makes each.

    With a limit, those whose content hashes lowest are taken: the same ones on every machine and in any order of the
    file, and a fair sample of it even if it is sorted. `where` keeps those whose fields have certain values.

    Raises:
        RequestError: no such file, nothing in it, or a fault in an item.
    """
    records = read_items(path, options=options, where=where)
    chosen: Iterable[int] = range(len(records))
    if limit is not None and limit < len(records):
        chosen = sorted(sorted(chosen, key=lambda i: hash_data([seed, records[i]]))[:limit])
    return [make(records[i], f"{path}, item {i + 1}") for i in chosen]


class LocalTask(Task):
    """A task whose items lie in a file of their own: a prompt, and something that should follow it."""

    path: DataPath
    """A .jsonl, .csv or .parquet file of items (.gz and .zst too), a folder of them, or `builtin:NAME`."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""
    where: dict[str, Wanted] = {}
    """Keep items whose fields have these values (any of them, for a list)."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many items, chosen by their content."""
    separator: str = " "
    """Stands between the prompt and what follows it."""
    shots: Count = Field(0, ge=0)
    """How many worked examples stand before each item; the same ones for all."""
    shots_path: DataPath | None = None
    """Where the worked examples are taken from; items of the task itself are never among them."""
    shots_seed: int = 0
    """Another number gives other worked examples, in another order."""
    between: str = "\n\n"
    """Stands after each worked example."""

    before: str = ""
    """Text that stands before all else, worked examples included: a condition that the model was trained with, such
    as `URL: example.org` and two line ends."""

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is newer than the first recipes and not used, so that their hashes stay the same."""
        plain = without_unused(self, handler)
        usual = {"before": "", "mode": None, "attention": "causal"}
        return {key: value for key, value in plain.items() if key not in usual or value != usual[key]}

    @model_validator(mode="after")
    def _has_examples(self) -> LocalTask:
        if self.shots > 0 and self.shots_path is None:
            raise ValueError("shots needs shots_path, a file that the worked examples are taken from")
        return self

    @abstractmethod
    def make(self, fields: Mapping[str, Any], place: str) -> Item:
        """The item of one record; `place` says in errors where it is."""

    @abstractmethod
    def items(self) -> Sequence[Item]:
        """Every item, in order."""

    def texts(self) -> Iterable[str]:
        """Each item as running text, without worked examples."""
        return (item.text for item in self.items())

    def check(self) -> None:
        """Read all items and worked examples."""
        self.examples(self.items())

    def examples(self, items: Sequence[Item]) -> str:
        """The text that stands before every item: `before`, and the worked examples.

        Raises:
            RequestError: there are too few that aren't items themselves.
        """
        if self.shots == 0 or self.shots_path is None:
            return self.before
        own = {item.text for item in items}
        found = {item.text for item in load(self.shots_path, self.make, None)} - own
        if len(found) < self.shots:
            raise RequestError(
                f"{self.shots_path} holds {len(found)} examples that aren't items of {self.path}, but shots asks for "
                f"{self.shots}."
            )
        chosen = sorted(found, key=lambda text: hash_data([self.shots_seed, text]))[: self.shots]
        return self.before + "".join(text + self.between for text in chosen)


class LikelihoodTask(LocalTask):
    """A local task that is decided by how likely some texts are after a prompt, and how the prompt is put."""

    mode: str | None = None
    """Name of a special token that stands before the prompt, such as `S` for a model trained by `ul2`."""
    attention: Attention = "causal"
    """How the model reads the prompt: each token those before it, or (`prefix`) all of them in both directions, as a
    model trained by `ul2` or `prefix_lm` does."""

    def likelihoods(self, subject: Evaluated, texts: Sequence[tuple[str, str]]) -> list[Likelihood]:
        """The likelihood of each second text after the first.

        Raises:
            RequestError: the model was trained without the mode asked for.
        """
        lead = [] if self.mode is None else [named_id(subject.tokenizer, self.mode)]
        return log_likelihoods(subject, encode_pairs(subject.tokenizer, texts), lead, self.attention)
