"""Keep documents of some languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field

from foretrain.corpus.document import Document
from foretrain.corpus.paths import content_hash, locate
from foretrain.corpus.scorers.ngram_perplexity import Ngrams
from foretrain.corpus.where import Wanted
from foretrain.curation.needed import require
from foretrain.curation.reading import Read
from foretrain.curation.stage import Stage
from foretrain.curation.steps.base import CorpusStep, Dropped
from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts
from foretrain.section import Count, DataPath, Number, Section
from foretrain.wording import check_template

STRETCH = 100
"""Bytes that are judged at once."""
_FEW = 100
_BUILTIN = {"english": "builtin:english", "python": "builtin:python"}
Guess = Callable[[str], tuple[str, float]]
"""A text's language, and how sure it is, from 0 to 1."""


class Sample(Section):
    """Text of one language, to know it by."""

    path: DataPath | list[DataPath]
    """Where it is, as for what is read."""
    text: Annotated[str, AfterValidator(check_template)] = "text"
    """The field that holds it, or a template."""
    where: dict[str, Wanted] = {}
    """Only records whose field has this value: `{language: de}`, where a file holds several."""
    limit: Count | None = Field(None, gt=0)
    """At most so many documents of each file."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""

    def read(self) -> Read:
        """What reads it."""
        return Read.model_validate(self.model_dump())


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | list) else value


class Language(CorpusStep):
    """A document goes whose language is not among those to `keep`, or is not sure enough.

    Languages are told by one of two things, and the manifest says by which. With `model`, a fastText model in a local
    file (GlotLID, lid.176) and its labels; its probability is how sure it is. Without, a byte n-gram model for each of
    `samples`, text of each language that is at hand: every stretch of 100 bytes is of the language under whose model it
    is likeliest, a document of that of most stretches, and the share of those is how sure it is. That tells what the
    samples tell: a language of which there is no sample is taken for the nearest one. Without samples either there are
    only the texts that ship with the interpreter, `english` and `python` code.

    Documents that stay have the field `language` and the score `language`.
    """

    kind: Literal["language"] = "language"
    facts: ClassVar[Facts] = Facts(
        paper="FineWeb2: One Pipeline to Scale Them All — Adapting Pre-Training Data Processing to Every Language",
        arxiv="2506.20920",
        year=2025,
        answers="which documents are dropped? those of other languages",
        overhead="samples: about 1 s per MB of text and sample, and 0.5 s per sample and shard",
    )

    keep: list[str] = Field(min_length=1)
    """Languages whose documents stay: names of samples, or labels of the model (`eng_Latn`)."""
    threshold: Number = Field(0.5, ge=0, le=1)
    """How sure it has to be, at least. FineWeb2's own lie between 0.3 and 0.9, by language."""
    model: DataPath | None = None
    """A fastText model (needs the package fasttext)."""
    samples: dict[str, Annotated[Sample, BeforeValidator(_path_alone, json_schema_input_type=Sample | str)]] = {}
    """Text of each language by name; a bare path stands for `{path: ...}`."""
    order: int = Field(4, ge=1, le=8)
    """Bytes of an n-gram."""
    bytes: Count = Field(500_000, gt=0)
    """At most so much of each sample is used."""

    def faults(self, before: Sequence[CorpusStep]) -> Iterator[str]:
        if self.model is not None and self.samples:
            yield "language: give a `model` or `samples`, not both"
        for name in self.keep if self.model is None else ():
            if name not in self._samples():
                yield f"language: {unknown_name('sample of language', name, self._samples())}"

    def check(self) -> None:
        """See that the model or the samples can be read."""
        if self.model is None:
            for sample in self._samples().values():
                sample.read().inputs()
            return
        labels = [label.removeprefix(_LABEL) for label in self._fasttext().get_labels()]
        for name in self.keep:
            if name not in labels:
                raise RequestError(f"language: {self.model}: {unknown_name('label', name, labels)}")

    def content(self) -> Any:
        plain = self.model_dump(mode="json", exclude={"samples", "model"})
        if self.model is not None:
            return {**plain, "model": content_hash(locate(self.model))}
        return {**plain, "samples": {name: sample.read().content() for name, sample in self._samples().items()}}

    def _samples(self) -> dict[str, Sample]:
        return self.samples or {name: Sample(path=path, limit=_FEW) for name, path in _BUILTIN.items()}

    def sift(self, documents: Iterator[Document], stage: Stage, rank: int) -> Iterator[Document | Dropped]:
        guess = self._by_samples() if self.model is None else self._by_model()
        for document in documents:
            language, sure = guess(document.text)
            metadata = {**document.metadata, "language": language}
            scores = {**document.scores, "language": sure}
            found = Document(document.id, document.text, document.source, metadata, scores)
            if language not in self.keep:
                yield Dropped(found, f"language {language}", f"{sure:.2f}")
            elif sure < self.threshold:
                yield Dropped(found, f"language {language}, but not sure", f"{sure:.2f}")
            else:
                yield found

    def gives(self) -> tuple[str, ...]:
        return ("language",)

    def _by_samples(self) -> Guess:
        models = {
            name: Ngrams(self.order, _some(sample.read(), self.bytes)) for name, sample in self._samples().items()
        }
        names = list(models)

        def guess(text: str) -> tuple[str, float]:
            data = text.encode()
            logs = np.stack([model.log_probabilities(data) for model in models.values()])
            starts = np.arange(0, len(data), STRETCH)
            votes = Counter(np.add.reduceat(logs, starts, axis=1).argmax(0).tolist())
            # Where votes are equal, the likelier language of the whole text.
            best = max(range(len(names)), key=lambda number: (votes[number], logs[number].sum()))
            return names[best], votes[best] / len(starts)

        return guess

    def _by_model(self) -> Guess:
        model = self._fasttext()

        def guess(text: str) -> tuple[str, float]:
            labels, chances = model.predict(" ".join(text.split()))
            return str(labels[0]).removeprefix(_LABEL), min(1.0, float(chances[0]))

        return guess

    def _fasttext(self) -> Any:
        assert self.model is not None
        path = locate(self.model)
        if not path.is_file():
            raise RequestError(f"language: there is no model {path}; nothing is downloaded. Give `samples` instead.")
        try:
            return require("fasttext").load_model(str(path))
        except ValueError as error:
            raise RequestError(f"language: {path} is no fastText model ({error}).") from error


_LABEL = "__label__"


def _some(read: Read, most: int) -> Iterator[bytes]:
    """The first texts of a sample, up to a number of bytes."""
    reader, size = read.reader(), 0
    for document in (found for entry in read.inputs() for found in entry.documents(reader)):
        data = document.text.encode()[: most - size]
        size += len(data)
        yield data
        if size >= most:
            return
