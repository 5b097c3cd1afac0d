"""Decontaminate: documents that hold items of a file or a task go, and a run on the rest is not refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.corpus.overlap import OverlapIndex
from foretrain.curation.build_file import make_build
from foretrain.curation.steps.decontaminate import Decontaminate
from foretrain.errors import RequestError
from tests.curation.stages import sifted
from tests.tasks.subjects import write_items

QUESTION = "Janet sells sixteen eggs a day at the market and eats three of them for breakfast every single morning"


def test_documents_that_hold_an_item_go(tmp_path: Path) -> None:
    items = write_items(tmp_path / "items.jsonl", [{"question": QUESTION, "answer": "13"}])
    step = Decontaminate(items={"sums": {"path": items, "text": "{question} {answer}"}})
    holds = f"A page. {QUESTION.upper()}! And more of the page."
    left, counts = sifted(step, tmp_path / "run", "Nothing of that kind here.", holds)
    assert [document.id for document in left] == ["0"]
    assert counts.dropped == {"holds items of sums": 1}
    assert counts.examples[0]["detail"].startswith("item 1 of sums (")
    index = OverlapIndex({"sums": [f"{QUESTION} 13"]})
    assert not any(index.check("", document) for document in left), "what a run looks for is gone"


def test_items_of_a_task(tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", [{"question": QUESTION, "answer": "thirteen"}])
    task = {"kind": "exact_match", "path": path, "prompt": "question", "answer": "answer"}
    step = Decontaminate.model_validate({"kind": "decontaminate", "tasks": {"eggs": task}})
    left, counts = sifted(step, tmp_path / "run", QUESTION, "free of it")
    assert [document.text for document in left] == ["free of it"]
    assert counts.dropped == {"holds items of eggs": 1}


def test_items_that_cannot_be_looked_for_are_refused(tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", [{"text": "too short"}])
    with pytest.raises(RequestError, match="all 1 items of 'few' are shorter than 6 words"):
        Decontaminate(items={"few": {"path": path}}).check()
    with pytest.raises(RequestError, match="needs `items` or `tasks`"):
        make_build({"read": "x.txt", "steps": ["decontaminate"]})
    with pytest.raises(RequestError, match="no field 'questoin'"):
        Decontaminate(items={"few": {"path": path, "text": "questoin"}}).check()
