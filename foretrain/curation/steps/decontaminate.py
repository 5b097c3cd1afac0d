"""Drop documents that hold items of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from foretrain.corpus.document import Document
from foretrain.corpus.items import read_items
from foretrain.corpus.overlap import OverlapIndex
from foretrain.corpus.where import Wanted
from foretrain.curation.stage import Stage
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.parts import Facts, PartOf
from foretrain.section import Count, DataPath, Section
from foretrain.tasks.base import Task
from foretrain.wording import check_template, wording_of


class Items(Section):
    """Texts that no document may hold."""

    path: DataPath
    """Where they are: a file or folder, `data:FILE`, `hub:NAME` or `builtin:NAME`."""
    text: Annotated[str, AfterValidator(check_template)] = "text"
    """The field that holds an item's text, or a template such as `{question} {answer}`."""
    where: dict[str, Wanted] = {}
    """Only items whose field has this value, or one of these."""
    limit: Count | None = Field(None, gt=0)
    """At most this many."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""

    def texts(self) -> list[str]:
        """The text of each item."""
        found = read_items(self.path, limit=self.limit, options=self.options, where=self.where)
        return [wording_of(self.text, item, f"{self.path}, item {number}") for number, item in enumerate(found, 1)]


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class Decontaminate(CorpusStep):
    """A document goes that holds half of the 13-word sequences of an item (short items: all of it), as words compare.

    It is the same comparison by which a run refuses a corpus that holds items of its tasks, so a run on what is left
    with the same tasks is not refused. Items of fewer than 6 words stand in much innocent text and are not looked for.
    """

    kind: Literal["decontaminate"] = "decontaminate"
    facts: ClassVar[Facts] = Facts(
        paper="Language Models are Few-Shot Learners",
        arxiv="2005.14165",
        year=2020,
        answers="which documents are dropped? those that hold what a model will be judged by",
    )

    items: dict[str, Annotated[Items, BeforeValidator(_path_alone, json_schema_input_type=Items | str)]] = {}
    """Sets of items by name; a bare path stands for `{path: ...}`."""
    tasks: dict[str, PartOf[Task]] = {}
    """Tasks by name, as in a recipe: their items."""

    @model_validator(mode="after")
    def _something(self) -> Decontaminate:
        if not self.items and not self.tasks:
            raise ValueError("needs `items` or `tasks`: what the corpus must not hold")
        if both := sorted(set(self.items) & set(self.tasks)):
            raise ValueError(f"'{both[0]}' is the name of a set of items and of a task; each needs its own")
        return self

    def check(self) -> None:
        """See that there are items, and that at least one of each set is long enough to be looked for."""
        index = OverlapIndex(self._texts())
        for name, count in index.judged.items():
            if not count:
                raise RequestError(
                    f"decontaminate: all {index.unjudged[name]} items of '{name}' are shorter than 6 words and cannot "
                    "be looked for. Name the fields that make up an item by `text`, or leave the set out."
                )

    def content(self) -> Any:
        return {"kind": self.kind, "format": 1, "items": hash_data(self._texts())}

    def _texts(self) -> dict[str, list[str]]:
        found = {name: items.texts() for name, items in self.items.items()}
        return {**found, **{name: list(task.texts()) for name, task in self.tasks.items()}}

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        index = OverlapIndex(self._texts())
        for document in documents:
            found = index.check("", document)
            if found:
                most = max(found, key=lambda overlap: overlap.share)
                detail = f"item {most.number + 1} of {most.items} ({most.share:.0%} of its sequences)"
                yield Dropped(document, f"holds items of {most.items}", detail)
            else:
                yield document
