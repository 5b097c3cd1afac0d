"""Scores: any scorer's number beside each document, and a filter by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.corpus.document import Document
from foretrain.corpus.scorers.random import Random
from foretrain.curation.build_file import make_build
from foretrain.curation.steps.score import Score
from foretrain.errors import RequestError
from tests.curation.stages import sifted


def test_the_scorers_own_numbers(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(20)]
    left, counts = sifted(Score(column="luck", scorer=Random(seed=3)), tmp_path / "all", *texts)
    expected = list(Random(seed=3).scores(Document("", text, "") for text in texts))
    assert [document.scores["luck"] for document in left] == expected
    step = Score(column="luck", scorer=Random(seed=3), least=0.3, most=0.7)
    left, counts = sifted(step, tmp_path / "some", *texts)
    assert [document.scores["luck"] for document in left] == [value for value in expected if 0.3 <= value <= 0.7]
    assert counts.dropped == {
        "luck below 0.3": sum(value < 0.3 for value in expected),
        "luck above 0.7": sum(value > 0.7 for value in expected),
    }


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    step = Score.model_validate({"kind": "score", "scorer": {"kind": "field", "field": "quality"}})
    with pytest.raises(RequestError, match="has no field 'quality'"):
        sifted(step, tmp_path, Document("a", "text", "test", {"qualities": 1}))
    with pytest.raises(RequestError, match="no document could stay"):
        make_build({"read": "x.txt", "steps": [{"kind": "score", "scorer": "random", "least": 2, "most": 1}]})
