from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from foretrain.errors import RequestError
from foretrain.generation import generate
from foretrain.tasks.exact_match import ExactMatch
from tests.tasks.subjects import subject, write_items


def task(**fields: object) -> ExactMatch:
    return ExactMatch.model_validate({"kind": "exact_match", "path": "x", **fields})


@pytest.mark.parametrize(
    ("fields", "text", "normal"),
    [
        ({}, "  two \n words ", "two words"),
        ({}, "Two", "Two"),
        ({"ignore_case": True}, "TWO Straße", "two strasse"),
        ({"number": True}, "2 + 3 = 5, so $1,200.50.", "1200.5"),
        ({"number": True}, "it is -7.0", "-7"),
        ({"number": True}, "from 3-7", "-7"),
        ({"number": True}, "-0", "0"),
        ({"number": True}, "100", "100"),
        ({"number": True}, "1e", "1"),
        ({"number": True}, "none", ""),
        ({"extract": "#### (.+)"}, "sum #### 3\n#### 18 \nmore", "18"),
        ({"extract": "#### (.+)"}, "nothing", ""),
        ({"extract": r"\d+"}, "a 12 b 34", "34"),
        ({"extract": "#### (.+)", "number": True}, "5 #### about 1,000 apples\n7", "1000"),
    ],
)
def test_normalise(fields: dict[str, object], text: str, normal: str) -> None:
    found = task(**fields).normalise(text)
    assert found == normal or (fields.get("number") and normal and float(found) == float(normal))


def test_numbers_compare_by_value() -> None:
    one = task(number=True)
    assert one.normalise("1,200") == one.normalise("1200.0") == one.normalise("= 1200.00 .") != one.normalise("120")


def test_what_the_model_writes_is_compared(tmp_path: Path) -> None:
    one = subject()
    prompts = ["first", "second", "third", "fourth"]
    written = generate(one, [f"Q {prompt}:" for prompt in prompts], tokens=6, stop=["\n"])
    answers: list[object] = [one.text for one in written]
    answers[1] = "something else"
    answers[2] = ["wrong", answers[2]]
    rows = [{"question": q, "answer": a} for q, a in zip(prompts, answers, strict=True)]
    path = write_items(tmp_path / "a.jsonl", rows)
    made = ExactMatch(path=path, prompt="Q {question}:", tokens=6)
    found = made.evaluate(one, 0)
    assert found["exact_match"].values == (1.0, 0.0, 1.0, 1.0)
    assert found["exact_match"].value == 0.75
    # One token less, or a stop string inside, gives other texts.
    assert made.model_copy(update={"tokens": 5}).evaluate(one, 0)["exact_match"].value < 0.75
    assert [item.text for item in made.items()][2] == "Q third: wrong"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"answer": ""}, "nothing in it to compare"),
        ({"answer": "no figure"}, "no number"),
        ({"answer": []}, "should hold text"),
    ],
)
def test_answers_with_nothing_to_compare(fields: dict[str, object], match: str) -> None:
    with pytest.raises(RequestError, match=f"place: .*{match}"):
        task(number="figure" in str(fields)).make({"question": "q", **fields}, "place")


@pytest.mark.parametrize("fields", [{"extract": "("}, {"extract": "(a)(b)"}, {"stop": [""]}, {"tokens": 0}])
def test_faults_of_the_recipe(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        task(**fields)
