"""Put documents into a run in the place of its own data, each intervention at positions of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from foretrain.batch import Batch
from foretrain.corpus.document import Document
from foretrain.corpus.inputs import open_path
from foretrain.corpus.records import Reader
from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import hash_bytes, seed_from
from foretrain.parts import Facts
from foretrain.section import Count, DataPath, Number, Section
from foretrain.steering.base import Steering
from foretrain.tokens.encoding import encode_all
from foretrain.tokens.tokenizer import needed

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.plan import Plan
    from foretrain.tokens.tokenizer import TextTokenizer

Ids = NDArray[np.int32]


class Intervention(Section):
    """Documents, and how often and when in a run they are put in."""

    path: DataPath
    """A file, a folder, `builtin:NAME` or `hub:NAME`, as for a domain of the corpus."""
    text: str = "text"
    """The field or column that holds the text."""
    options: dict[str, Any] = {}
    """Settings of a `builtin:` corpus, or of a `hub:` data set."""
    limit: Count | None = Field(None, gt=0)
    """Take at most this many documents, the first ones."""
    repeats: Count = Field(1, gt=0)
    """How many times each document is put in."""
    start: Number = Field(0.0, ge=0, lt=1)
    """Share of the run from which on it may stand."""
    end: Number = Field(1.0, gt=0, le=1)
    """Share of the run up to which it may stand."""

    @model_validator(mode="after")
    def _in_order(self) -> Intervention:
        if self.start >= self.end:
            raise ValueError(f"start ({self.start:g}) should be below end ({self.end:g})")
        return self

    def documents(self) -> list[Document]:
        """Its documents.

        Raises:
            RequestError: they cannot be read, or there are none.
        """
        reader = Reader(self.text)
        found = (document for source in open_path(self.path, self.options) for document in source.documents(reader))
        documents = list(islice(found, self.limit))
        if not documents:
            raise RequestError(f"{self.path} holds no documents with text, so there is nothing to put into the run.")
        return documents


@dataclass(frozen=True, slots=True)
class Insertion:
    """One piece of a document in the run.

    Attributes:
        position: of its window in the stream: row `row` of step `step`, counted over all ranks.
        offset: tokens of the window in front of it; `tokens`: how many it replaces.
        document: id of the document; `repeat`: which time it is put in; `piece`: which piece of it; all from 0.
    """

    position: int
    step: int
    row: int
    offset: int
    tokens: int
    intervention: str
    document: str
    repeat: int
    piece: int


Layout = dict[int, tuple[Insertion, Ids]]
"""What stands where: the insertion at a position and the tokens it puts there."""


class Injection(Steering):
    """Replaces tokens of the run in place by those of documents; the number of tokens stays what it was.

    Every window of the run belongs to at most one intervention. The windows that narrower interventions leave in its
    part of the run are cut into as many equal stretches as it needs, and it takes one at random from each; its
    documents come pass by pass, shuffled anew, so that the repeats of each are spread alike. A document stands at a
    random place of its window between end-of-text tokens; one that is longer than a window is cut, and its pieces
    fill successive windows of the intervention. Where everything stands depends on the seed and on all interventions
    that are declared, never on those that are `active`: alone and together, an intervention acts at the same
    positions. `ledger(plan)` lists them.

    Validation text and tasks are left alone, and documents that are put in may well be items of a task. A run that is
    extended keeps its positions, and gets nothing new in the extension.
    """

    kind: Literal["injection"] = "injection"
    modality: ClassVar[str] = "text"
    facts: ClassVar[Facts] = Facts(
        paper="Train Once, Answer All: Many Pretraining Experiments for the Cost of One",
        arxiv="2509.23383",
        year=2025,
        answers="mix: which tokens of the run are replaced by which documents?",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"active": []}

    interventions: dict[str, Intervention] = Field(min_length=1)
    """Interventions by name."""
    active: list[str] | None = None
    """Which of them act; elsewhere the run keeps its own text. Unset: all."""

    _context: Any = PrivateAttr(None)
    _steps: int = PrivateAttr(0)
    _hash: str = PrivateAttr("")
    _layout: Layout = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Injection:
        unknown = [name for name in self.active or [] if name not in self.interventions]
        if unknown:
            raise ValueError(f"active: {unknown_name('intervention', unknown[0], self.interventions)}")
        return self

    def setup(self, context: Context) -> None:
        """Lay every intervention out over the run.

        Raises:
            RequestError: there are more insertions than positions, no documents, a budget in minutes, or two such
                parts.
        """
        if sum(isinstance(part, Injection) for part in context.recipe.steering) > 1:
            raise RequestError("steering: 'injection' stands there twice; list all interventions in one of them.")
        if context.recipe.budget.minutes is not None:
            raise RequestError(
                "steering 'injection' gives every insertion its place in the run, and a budget in minutes may move the "
                "end of the run; give the budget in steps, tokens or flops."
            )
        if not context.rehearsal:  # a rehearsal has another length, and replaced tokens cost what others do
            self._context = context
            self._lay_out(context.total_steps)

    def replace(self, batch: Batch) -> Batch:
        """The batch with what stands in this step, on this rank, put in."""
        found = [
            (row, *self._layout[position])
            for row, position in enumerate(batch.positions.tolist())
            if position in self._layout
        ]
        if not found:
            return batch
        tokens, changed = batch["tokens"].clone(), dict[str, Tensor]()
        segments = batch["segments"].clone() if "segments" in batch else None
        for row, insertion, ids in found:
            first, last = insertion.offset, insertion.offset + insertion.tokens
            tokens[row, first:last] = torch.from_numpy(ids.astype(np.int64))
            if segments is not None:
                framed = insertion.piece == 0 and self._context.tokenizer.eos is not None
                segments[row] = _segments(segments[row], first, first + framed, last)
        if segments is not None:
            changed["segments"] = segments
        return batch.with_(tokens=tokens, **changed)

    def state_dict(self) -> dict[str, Any]:
        """The steps that it was laid out over, and the hash of what is put in."""
        return {"steps": self._steps, "data": self._hash}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Lay out as the run was when it began.

        Raises:
            RequestError: the documents are not what they were.
        """
        if state["data"] != self._hash:
            raise RequestError(
                "steering 'injection': the documents of its interventions changed since the run was started, so it "
                "cannot go on exactly. Put the files back, or use `--restart`."
            )
        if state["steps"] != self._steps:
            self._lay_out(state["steps"])

    def _lay_out(self, steps: int) -> None:
        stream = self._context.stream
        layout, self._hash = lay_out(
            self.interventions,
            self._context.tokenizer,
            steps=steps,
            rows=stream.rows,
            window=stream.window,
            stride=stream.stride,
            seed=self._context.seed,
        )
        self._steps = steps
        self._layout = {place: found for place, found in layout.items() if self._acts(found[0].intervention)}

    def _acts(self, intervention: str) -> bool:
        return self.active is None or intervention in self.active


def ledger(plan: Plan) -> list[Insertion]:
    """Everything that a run of this plan puts in, in the order in which it comes.

    Raises:
        RequestError: there are more insertions than positions, or the length of the run is not known yet (a budget in
            FLOPs, before the run has begun).
    """
    if plan.total_steps is None:
        raise RequestError("What a run puts in where is known once its number of steps is: give the budget in steps.")
    found: Layout = {}
    for part in plan.recipe.steering:
        if isinstance(part, Injection):
            layout, _ = lay_out(
                part.interventions,
                needed(plan.tokenizer),
                steps=plan.total_steps,
                rows=plan.rows,
                window=plan.window,
                stride=plan.context,
                seed=plan.recipe.seed,
            )
            found |= {place: entry for place, entry in layout.items() if part._acts(entry[0].intervention)}
    return [found[place][0] for place in sorted(found)]


def lay_out(
    interventions: Mapping[str, Intervention],
    tokenizer: TextTokenizer,
    *,
    steps: int,
    rows: int,
    window: int,
    stride: int,
    seed: int,
) -> tuple[Layout, str]:
    """Where every intervention stands in a run of `steps` steps of `rows` windows; and the hash of all that is put in.

    Args:
        interventions: all that are declared, by name.
        tokenizer: of the run.
        steps: optimizer steps of the run.
        rows: windows per step, over all ranks.
        window: tokens per row.
        stride: new tokens per row; pieces of one document overlap by the rest, so that each token is predicted once.
        seed: of the run.

    Raises:
        RequestError: an intervention needs more windows than are left for it, or holds no documents.
    """
    windows = steps * rows
    free = np.ones(windows, np.bool_)
    layout: Layout = {}
    digest: list[bytes] = []
    # The narrowest first: they have the least choice. The rest is order by name, so that none depends on the file's.
    for name in sorted(interventions, key=lambda name: (interventions[name].end - interventions[name].start, name)):
        one = interventions[name]
        documents = list(_pieces(one, tokenizer, window, stride))
        digest += [ids.tobytes() for _, pieces in documents for ids in pieces]
        needed = one.repeats * sum(len(pieces) for _, pieces in documents)
        first, last = round(one.start * windows), round(one.end * windows)
        left = first + np.flatnonzero(free[first:last])
        if needed > len(left):
            raise RequestError(
                f"steering 'injection': intervention '{name}' puts in {needed} pieces ({len(documents)} documents, "
                f"{one.repeats} times each), but of the {last - first} windows from {one.start:g} to {one.end:g} of "
                f"the run ({windows} in all) {len(left)} are left for it. Lower its `repeats` or `limit`, widen "
                "`start` and `end`, or make the run longer."
            )
        dice = np.random.Generator(np.random.Philox(key=seed_from(seed, "injection", name)))
        edges = np.arange(needed + 1) * len(left) // needed
        chosen = left[edges[:-1] + (dice.random(needed) * np.diff(edges)).astype(np.int64)]
        free[chosen] = False
        places = iter(chosen.tolist())
        for repeat in range(one.repeats):
            for number in np.argsort(dice.random(len(documents)), kind="stable").tolist():
                document, pieces = documents[number]
                for piece, ids in enumerate(pieces):
                    place = next(places)
                    room = window - len(ids) if len(pieces) == 1 else 0
                    offset = int(dice.random() * (room + 1))
                    insertion = Insertion(
                        place, place // rows, place % rows, offset, len(ids), name, document, repeat, piece
                    )
                    layout[place] = insertion, ids
    return layout, hash_bytes(b"".join(digest))


def _pieces(one: Intervention, tokenizer: TextTokenizer, window: int, stride: int) -> Iterator[tuple[str, list[Ids]]]:
    """The id of every document, and its tokens between end-of-text tokens in pieces of at most a window."""
    frame = [] if tokenizer.eos is None else [tokenizer.eos]
    for found in encode_all(tokenizer, ((document.id, document.text) for document in one.documents())):
        ids = np.array([*frame, *found.ids, *frame], np.int32)
        starts = range(0, max(1, len(ids) - (window - stride)), stride) if len(ids) > window else (0,)
        yield found.item, [ids[start : start + window] for start in starts]


def _segments(segments: Tensor, first: int, begin: int, last: int) -> Tensor:
    """Numbers of the documents of a window in which one was put, from `begin` to `last`.

    From `first` to `begin` stands the end-of-text token in front of it, which ends the document before.
    """
    starts = torch.zeros_like(segments)
    starts[1:] = segments[1:] != segments[:-1]
    starts[first + 1 : last] = 0
    for place in (begin, last):
        if 0 < place < len(segments):
            starts[place] = 1
    return starts.cumsum(0).to(segments.dtype)
