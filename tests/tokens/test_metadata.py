"""Metadata in front of documents: read and not learned, in windows that begin with a document; parts; stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.corpus.annotation import Annotation
from foretrain.corpus.document import Document
from foretrain.corpus.source import open_domain
from foretrain.errors import CorruptFile, RequestError
from foretrain.hashing import hash_bytes
from foretrain.recipe import Domain, make_recipe
from foretrain.tokens.arranged import Arranged
from foretrain.tokens.orders.aligned import AlignedWindows
from foretrain.tokens.prepare import Prepared, prepare
from foretrain.tokens.shards import TokenSet
from foretrain.tokens.tokenizers.byte import Byte
from tests.tiny import tiny_data, tiny_plan, tiny_trainer

RECORDS = [
    {
        "text": f"Document {number} says this." + " More." * (number % 4),
        "url": f"https://s{number % 3}.example/{number}",
    }
    for number in range(60)
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return str(tmp_path / "docs.jsonl")


def _prepared(tmp_path: Path, **domains: dict[str, Any]) -> Prepared:
    corpus = {name: Domain.model_validate({"validation": 0.2, **domain}) for name, domain in domains.items()}
    return prepare(corpus, Byte(), cache=tmp_path / "cache")


def _texts(tokens: Any) -> list[tuple[str, str]]:
    """Each document of a set: what is given, and what is to be learned."""
    decode = Byte().build(lambda: iter(())).decode
    ends = tokens.document_ends()[0].tolist()
    found = []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        ids = tokens.read(begin, end - begin)
        given = tokens.given(np.array([begin]), end - begin)
        mark = np.zeros(end - begin, bool) if given is None else given[0]
        assert not (np.diff(mark.astype(int)) > 0).any()  # it stands in front
        found.append((decode(ids[mark].tolist()), decode(ids[~mark].tolist())))
    return found


def test_it_stands_in_front_of_training_documents_alone(tmp_path: Path, path: str) -> None:
    prepared = _prepared(
        tmp_path, plain={"path": path}, told={"path": path, "metadata": "url"},
        hashed={"path": path, "metadata": {"field": "url", "hashed": True, "wording": "<{metadata}> "}},
    )  # fmt: skip
    hosts = {record["text"]: record["url"].split("/")[2] for record in RECORDS}
    plain, told, hashed = (_texts(prepared.sets[name]["train"]) for name in ("plain", "told", "hashed"))
    bodies = [body for _, body in plain]
    assert bodies == [body for _, body in told] == [body for _, body in hashed] and 30 < len(bodies) < 60
    for (nothing, body), (before, _), (short, _) in zip(plain, told, hashed, strict=True):
        host = hosts[body.removesuffix("<|endoftext|>")]
        assert (nothing, before) == ("", f"URL: {host}\n\n")
        assert short == f"<{hash_bytes(host.encode(), 4)}> "
    for name in ("told", "hashed"):
        assert prepared.sets[name]["validation"].hash == prepared.sets["plain"]["validation"].hash
        assert prepared.sets[name]["train"].bytes == prepared.sets["plain"]["train"].bytes
        assert prepared.sets[name]["train"].hash != prepared.sets["plain"]["train"].hash
    # A view of some documents knows it, too; and around the end of the ring.
    base = prepared.sets["told"]["train"]
    assert isinstance(base, TokenSet)
    some = Arranged(base, np.array([4, 1, 7]))
    assert _texts(some) == [told[4], told[1], told[7]]
    turned = some.given(np.array([some.tokens - 3]), 8)
    assert turned is not None and turned.tolist() == [[False] * 3 + [True] * 5]


def test_what_is_missing_or_damaged_is_said(tmp_path: Path, path: str) -> None:
    with pytest.raises(RequestError, match=r"corpus\.a\.metadata: document .*'adress'"):
        _prepared(tmp_path, a={"path": path, "metadata": "adress"})
    with pytest.raises(RequestError, match=r"metadata: .*'hashd'; did you mean 'hashed'"):
        make_recipe(tiny_data(corpus={"a": {"path": path, "metadata": {"field": "url", "hashd": True}}}))
    _prepared(tmp_path, a={"path": path, "metadata": "url"})
    (mark,) = (tmp_path / "cache").rglob("train-given.npy")
    np.save(mark, np.load(mark)[:-1])
    with pytest.raises(CorruptFile, match=r"train-given\.npy is damaged"):
        _prepared(tmp_path, a={"path": path, "metadata": "url"})


def test_values_that_are_no_address_stand_as_they_are() -> None:
    document = Document("1", "text", "here", {"topic": "tea", "year": 1999, "url": "https://A.example:80/x"})
    assert Annotation(field="topic", wording="[{metadata}]").text(document) == "[tea]"
    assert Annotation(field="year").text(document) == "URL: 1999\n\n"
    assert Annotation(field="url").text(document) == "URL: a.example\n\n"


# Parts ---------------------------------------------------------------------------------------------------------------


def _ids(path: str, **settings: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for document, split in open_domain(Domain.model_validate({"path": path, "validation": 0.2, **settings})).splits():
        found.setdefault(split, set()).add(document.id)
    return found


def test_parts_share_the_training_documents_and_leave_the_others() -> None:
    path = "builtin:arithmetic"
    options = {"options": {"count": 800}}
    whole = _ids(path, **options)
    first, second = _ids(path, part=[0, 0.75], **options), _ids(path, part=[0.75, 1], **options)
    assert first["validation"] == second["validation"] == whole["validation"]
    assert not first["train"] & second["train"] and first["train"] | second["train"] == whole["train"]
    assert len(first["train"]) / len(whole["train"]) == pytest.approx(0.75, abs=0.06)
    domains = [Domain.model_validate({"path": path, **options, "part": part}) for part in (None, [0, 0.75], [0.75, 1])]
    assert len({open_domain(domain).fingerprint() for domain in domains}) == 3
    source = open_domain(domains[1])
    assert sum(1 for _ in source.splits()) == source.report.documents
    with pytest.raises(RequestError, match="its beginning before its end"):
        make_recipe(tiny_data(corpus={"a": {"path": path, "part": [0.5, 0.5]}}))
    # A recipe that uses neither has the hash that it had.
    assert {"part", "metadata"}.isdisjoint(domains[0].model_dump())


# Windows -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 40), st.integers(0, 9))
def test_windows_begin_with_a_document_and_drop_what_does_not_fit(sizes: list[int], room: int, key: int) -> None:
    order = AlignedWindows(np.cumsum(sizes), room, key)
    expected, filled, place = [], room, 0
    for size in sizes:
        if filled >= room:
            expected.append(place)
            filled = 0
        filled, place = filled + size, place + size
    for epoch in range(2):
        starts = order.starts(np.arange(order.windows) + epoch * order.windows)
        assert sorted(starts.tolist()) == expected


def test_they_come_in_a_new_order_in_each_epoch() -> None:
    order = AlignedWindows(np.arange(10, 1001, 10), 20, 3)
    first, second = order.starts(np.arange(50)), order.starts(np.arange(50, 100))
    assert order.windows == 50 and set(first) == set(second) and first.tolist() != second.tolist()
    assert order.starts(np.array([60, 3])).tolist() == [second[10], first[3]]


def _told(**changes: Any) -> dict[str, Any]:
    domain = {
        "path": "builtin:sources",
        "options": {"count": 400, "subjects": 40},
        "order": "aligned",
        "validation": 0.1,
    }
    told = {**domain, "metadata": "url", "part": [0, 0.8]}
    return {
        "corpus": {"told": told, "plain": {**domain, "part": [0.8, 1]}},
        "documents": "separate",
        "stages": {"told": {"weights": {"told": 1}, "share": 3}, "plain": {"weights": {"plain": 1}}},
        "model": {"kind": "llama", "layers": 1, "width": 16, "heads": 2, "context": 256},
        "batch": {"tokens": 1024},
        **changes,
    }


def test_a_run_reads_it_learns_the_rest_and_ends_without() -> None:
    trainer = tiny_trainer(**_told())
    decode = trainer.context.tokenizer.decode
    plain_texts: set[str] = set()
    rates = []
    for step in range(8):
        batch = trainer.objective.prepare(trainer.stream.batch())
        for row in range(batch.rows):
            documents = decode([*batch["inputs"][row].tolist(), int(batch["labels"][row, -1])]).split("<|endoftext|>")
            learned = decode(batch["labels"][row][batch["mask"][row]].tolist())
            if step < 6:
                assert all(text.startswith("URL: ") and ".example\n\n" in text for text in documents[:-1])
                assert "URL" not in learned and ".example" not in learned
                for text in documents[:-1]:
                    assert text.partition("\n\n")[2] in learned  # with its first letter, after what is given
            else:
                assert "URL" not in "".join(documents)
                plain_texts |= set(documents[:-1])
        figures = trainer.train_step()
        assert figures["loss_tokens"] == int(batch["mask"].sum())
        rates.append(figures["lr"])
    # The schedule goes on over both, and the last texts are new ones.
    assert rates == [trainer.plan.recipe.optimizer.lr * trainer.plan.recipe.schedule.factor(s, 8) for s in range(8)]
    told = {text.partition("\n\n")[2] for (text,) in _whole(trainer.plan.sets("train")["told"], decode)}
    assert plain_texts and not plain_texts & told
    assert not trainer.plan.notes
    assert any("keep each with its own" in note for note in tiny_plan(**_told(documents="packed")).notes)


def _whole(tokens: Any, decode: Any) -> list[tuple[str]]:
    ends = tokens.document_ends()[0].tolist()
    return [
        (decode(tokens.read(begin, end - begin).tolist()).removesuffix("<|endoftext|>"),)
        for begin, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


def test_a_batch_of_both_marks_the_one_alone() -> None:
    trainer = tiny_trainer(**{**_told(), "stages": {}})
    batch = trainer.stream.batch()
    told = batch["domain"] == 0
    assert 0 < int(told.sum()) < batch.rows
    assert batch["given"][told].any(1).all() and not batch["given"][~told].any()


def test_other_objectives_leave_it_out_too() -> None:
    trainer = tiny_trainer(**_told(documents="packed", objective="span_corruption"))
    batch = trainer.objective.prepare(trainer.stream.batch())
    raw, plain = trainer.stream.batch(), trainer.stream.batch()
    without = trainer.objective.prepare(plain.with_(given=torch.zeros_like(raw["given"])))
    assert torch.equal(batch["inputs"], without["inputs"])
    assert int(batch["mask"].sum()) < int(without["mask"].sum())
