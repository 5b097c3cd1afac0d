"""Language mixing: words that are of one language, counted in what a model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foretrain.errors import RequestError
from foretrain.generation import Generated
from foretrain.tasks import language_mixing
from foretrain.tasks.language_mixing import LanguageMixing
from tests.tasks.subjects import subject, write_items

NORTH = "the cat saw a small red house and it ran"
SOUTH = "der kater sah the house und er rannte"


def _task(folder: Path, **changes: Any) -> LanguageMixing:
    texts = {
        "north": write_items(folder / "north.jsonl", [{"text": NORTH}]),
        "south": write_items(folder / "south.jsonl", [{"text": SOUTH}]),
    }
    asked = write_items(folder / "asked.jsonl", [{"text": "Small red house, so it ran off"}, {"text": "too short"}])
    data = {
        "kind": "language_mixing",
        "prompts": {"path": asked},
        "languages": {name: {"path": path} for name, path in texts.items()},
        "language": "north",
        "words": 3,
        "tokens": 8,
        **changes,
    }
    return LanguageMixing.model_validate(data)


def _says(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[dict[str, Any]]:
    """What the model writes; returns how it was asked."""
    asked: list[dict[str, Any]] = []

    def written(subject: Any, prompts: list[str], **settings: Any) -> list[Generated]:
        asked.append({"prompts": prompts, **settings})
        return [Generated("", text, (), "eos", False) for text in texts]

    monkeypatch.setattr(language_mixing, "generate", written)
    return asked


def test_words_are_of_the_language_that_alone_has_them(tmp_path: Path) -> None:
    owners = _task(tmp_path).owners()
    assert owners["cat"] == "north" and owners["kater"] == "south"
    assert "the" not in owners and "house" not in owners, "both have them"
    assert "it" not in owners and "er" not in owners, "too short"
    assert "er" in _task(tmp_path, letters=2).owners()


def test_the_first_words_are_given(tmp_path: Path) -> None:
    assert _task(tmp_path).given() == ["Small red house,"]
    assert list(_task(tmp_path, words=2).texts()) == ["Small red"]


def test_shares_are_counts_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the words of three letters: cat, saw are north's; KATER is south's; house is both's; zzz is nobody's.
    asked = _says(monkeypatch, "A cat saw, KATER house-zzz!", "und 123 it")
    found = _task(tmp_path, prompts={"path": write_items(tmp_path / "two.jsonl", [{"text": "a b c d"}] * 2)}).evaluate(
        subject(), 3
    )
    assert asked[0]["prompts"] == ["a b c", "a b c"] and asked[0]["seed"] == 3 and asked[0]["temperature"] == 1.0
    assert found["mixing"].value == pytest.approx(2 / 4)
    assert found["mixing"].values == pytest.approx([1 / 3, 1.0])
    assert found["own"].value == pytest.approx(2 / 6) and found["other"].value == pytest.approx(2 / 6)
    assert found["own"].higher_is_better and not found["other"].higher_is_better


def test_nothing_that_can_be_told_is_no_mixing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _says(monkeypatch, "zzz qqq")
    found = _task(tmp_path).evaluate(subject(), 0)
    assert (found["mixing"].value, found["own"].value, found["other"].value) == (0.0, 0.0, 0.0)
    _says(monkeypatch, "")
    assert _task(tmp_path).evaluate(subject(), 0)["other"].value == 0.0


def test_a_real_model_is_sampled_and_gives_the_same_twice(tmp_path: Path) -> None:
    task = _task(tmp_path)
    assert task.evaluate(subject(), 0) == task.evaluate(subject(), 0)


def test_faults_are_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="there is no language 'nort'; did you mean 'north'"):
        _task(tmp_path, language="nort")
    with pytest.raises(RequestError, match="is longer than 30 words"):
        _task(tmp_path, words=30).check()
    same = {"path": write_items(tmp_path / "same.jsonl", [{"text": NORTH}])}
    with pytest.raises(RequestError, match=r"languages\.north: its text has no word that is in none of the others"):
        _task(tmp_path, languages={"north": same, "too": same}).check()
