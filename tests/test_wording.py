from __future__ import annotations

import pytest

from foretrain.errors import RequestError
from foretrain.wording import check_template, fill, wording_of

FIELDS = {
    "question": "Why?",
    "number": 3,
    "deep": {"text": "x", "a.b": 1},
    "a b": "spaced",
    "a.b": "dotted",
    "none": None,
}


@pytest.mark.parametrize(
    ("wording", "text"),
    [
        ("question", "Why?"),
        ("Q: {question}\nA {number}:", "Q: Why?\nA 3:"),
        ("{{{question}}}", "{Why?}"),
        ("deep.text", "x"),
        ("{deep.text}{a b}", "xspaced"),
        ("a.b", "dotted"),
    ],
)
def test_fields_and_templates(wording: str, text: str) -> None:
    assert check_template(wording) == wording
    assert wording_of(wording, FIELDS, "here") == text


def test_a_template_without_braces_is_literal() -> None:
    assert fill("question", FIELDS, "here") == "question"


@pytest.mark.parametrize("wording", ["{question", "a } b", "{}", "{question!r}", "{question:5}"])
def test_malformed_templates(wording: str) -> None:
    with pytest.raises(ValueError, match="braces"):
        check_template(wording)


def test_missing_and_unfit_fields_say_where() -> None:
    with pytest.raises(RequestError, match=r"data, item 2: there is no field 'qestion'; did you mean 'question'\?"):
        wording_of("{qestion}", FIELDS, "data, item 2")
    with pytest.raises(RequestError, match="item 2: the field 'none' should hold text or a number, but holds nothing"):
        wording_of("none", FIELDS, "data, item 2")
    with pytest.raises(RequestError, match=r"no field 'deep\.txt'"):
        wording_of("deep.txt", FIELDS, "data, item 2")
