"""How well the model fills in what was cut out of a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_serializer

from foretrain.corpus.where import Wanted, without_unused
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.objectives._spans import Bools, Ints, Noise, with_sentinels
from foretrain.parts import Facts
from foretrain.section import Count, DataPath, Section
from foretrain.tasks.base import Evaluated, Measured, Task
from foretrain.tasks.items import Item, Wording, load
from foretrain.tasks.likelihood import Attention, Row, score_rows
from foretrain.tasks.statistics import mean
from foretrain.tokens.reserved import named_id, reserved_ids, sentinel_ids
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.wording import wording_of


class Form(Section):
    """How a model is asked for what was cut out."""

    sentinels: bool = False
    """Whether it is given the whole text with sentinels in the places of what was cut out, and asked for each sentinel
    with its tokens; otherwise each token that was cut out is asked for after all of the text before it."""
    attention: Attention = "causal"
    """How it reads what comes before the first token that is asked for: `prefix` is in both directions."""
    mode: str | None = None
    """Name of a special token that stands before all else; without it in the model's tokenizer, this is not asked."""


FORMS = {
    "text": {},
    "prefix": {"attention": "prefix"},
    "sentinels": {"sentinels": True, "attention": "prefix"},
    "sentinels-causal": {"sentinels": True},
    "S": {"attention": "prefix", "mode": "S"},
    "R": {"sentinels": True, "attention": "prefix", "mode": "R"},
    "X": {"sentinels": True, "attention": "prefix", "mode": "X"},
}


class InfillLoss(Task):
    """Loss on tokens that were cut out of texts: short spans, long spans, the end.

    Models are trained to be asked in different ways, and the tokens to be predicted are the same in all of them. So
    each is asked in every form, and what counts is the form that it answers best (as a whole, not item by item).

    Metrics: `NOISE/loss` (nats per token that was cut out, in the best form) and `NOISE/FORM` for each kind of noise;
    `loss`, the mean of `NOISE/loss` over the kinds.
    """

    kind: Literal["infill_loss"] = "infill_loss"
    facts: ClassVar[Facts] = Facts(
        paper="UL2: Unifying Language Learning Paradigms",
        arxiv="2205.05131",
        year=2022,
        answers="how well is what was cut out of a text filled in?",
    )

    path: DataPath
    """A .jsonl, .csv or .parquet file of texts (.gz and .zst too), a folder of them, or `builtin:NAME`."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""
    where: dict[str, Wanted] = {}
    """Keep texts whose fields have these values (any of them, for a list)."""
    limit: Count | None = Field(None, gt=1)
    """Use at most this many texts, chosen by their content."""
    text: Wording = "text"
    """Field with the text, or a template."""
    length: Count | None = Field(None, gt=1)
    """Tokens of each text that are read, from a place drawn by its content; unset, or too many for the model: as many
    as fit its context in every form. Texts with fewer tokens are left out."""
    noise: dict[str, Noise] = Field(
        {"short": {"rate": 0.15, "span": 3}, "long": {"rate": 0.15, "span": 16}, "end": {"rate": 0.25}},
        validate_default=True,
        min_length=1,
    )
    """What is cut out, by name: `rate` of the tokens in spans of `span` on average, or (`span` unset) the end."""
    noise_seed: int = 0
    """Another number cuts elsewhere."""
    forms: dict[str, Form] = Field(FORMS, validate_default=True, min_length=1)
    """How models are asked, by name."""

    _without_unused = model_serializer(mode="wrap")(without_unused)

    def make(self, fields: Mapping[str, Any], place: str) -> Item:
        """The item of one record."""
        return Item("", wording_of(self.text, fields, place))

    def texts(self) -> Iterable[str]:
        """Every text, whole."""
        items = load(self.path, self.make, self.limit, options=self.options, where=self.where)
        return (item.text for item in items)

    def evaluate(self, subject: Evaluated, seed: int) -> dict[str, Measured]:
        """See the class."""
        forms = self._possible(subject.tokenizer)
        excerpts = self._excerpts(subject)
        found: dict[str, Measured] = {}
        for name, noise in self.noise.items():
            cuts = [
                noise.draw(len(ids), np.random.default_rng(seed_from(self.noise_seed, "infill", name, text)))
                for text, ids in excerpts
            ]
            asked = {
                form: self._measure(subject, how, [ids for _, ids in excerpts], cuts) for form, how in forms.items()
            }
            found[f"{name}/loss"] = min(asked.values(), key=lambda measured: measured.value)
            found |= {f"{name}/{form}": measured for form, measured in asked.items()}
        overall = [found[f"{name}/loss"].value for name in self.noise]
        found["loss"] = Measured(sum(overall) / len(overall), None, None, len(excerpts), False)
        return found

    def _possible(self, tokenizer: TextTokenizer) -> dict[str, Form]:
        sentinels = len(reserved_ids(tokenizer)) > len(tokenizer.named)
        forms = {
            name: form
            for name, form in self.forms.items()
            if (form.mode is None or form.mode in tokenizer.named) and (sentinels or not form.sentinels)
        }
        if not forms:
            raise RequestError(
                f"infill_loss: the model's tokenizer has what none of the forms {', '.join(self.forms)} needs (special "
                "tokens of these modes, or reserved ids for sentinels); add a form without: `text: {}`."
            )
        return forms

    def _excerpts(self, subject: Evaluated) -> list[tuple[str, Ints]]:
        """Stretches of the texts, all of one length."""
        # A mode, sentinels and two ends at most, and the last token is only predicted.
        fits = min(_longest(noise, subject.context) for noise in self.noise.values())
        length = fits if self.length is None else min(fits, self.length)
        texts = list(self.texts())
        excerpts = []
        for text, ids in zip(texts, subject.tokenizer.encode(texts), strict=True):
            if len(ids) >= length > 1:
                start = seed_from(self.noise_seed, "excerpt", text) % (len(ids) - length + 1)
                excerpts.append((text, np.array(ids[start : start + length], np.int64)))
        if not excerpts:
            raise RequestError(
                f"infill_loss: no text of {self.path} has the {length} tokens that are read; give longer texts, or a "
                "smaller `length`."
            )
        return excerpts

    def _measure(self, subject: Evaluated, form: Form, texts: list[Ints], cuts: list[Bools]) -> Measured:
        tokenizer = subject.tokenizer
        lead = [] if form.mode is None else [named_id(tokenizer, form.mode)]
        rows = []
        for ids, noise in zip(texts, cuts, strict=True):
            if form.sentinels:
                spans = int((noise & ~np.append(False, noise[:-1])).sum())
                end = 0 if tokenizer.eos is None else tokenizer.eos
                found = with_sentinels(ids, noise, np.array(sentinel_ids(tokenizer, spans), np.int64), end)
                given, asked, places = found.inputs, found.targets, np.flatnonzero(found.places >= 0)
            else:
                first = int(np.argmax(noise))
                given, asked, places = ids[:first], ids[first:], np.flatnonzero(noise[first:])
            before = len(lead) + len(given)
            prefix = before if form.attention == "prefix" else 0
            rows.append(Row([*lead, *given.tolist(), *asked.tolist()], (before + places).tolist(), prefix))
        nats = [-log for log, _ in score_rows(subject, rows)]
        return mean(nats, [len(row.scored) for row in rows], higher_is_better=False)


def _longest(noise: Noise, context: int) -> int:
    """The longest text that fits a context in every form."""
    if noise.suffix:  # one sentinel, twice, where the end is asked for as a span
        return context - 4
    return noise.raw_length(context)
