"""Renderings: the rule in every language, marks of their own, and noise."""

from __future__ import annotations

import itertools

import pytest

from foretrain.corpus.builtin.renderings import MARKS, Renderings

LANGUAGES = tuple(MARKS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_pair_has_its_sum(language: str) -> None:
    documents = list(Renderings.model_validate({"language": language, "modulus": 7}).documents())
    assert len({document.text for document in documents}) == 49
    before, between, equals = MARKS[language]
    for document in documents:
        first, second, answer = ("abcdefg".index(document.text[place]) for place in (1, 3, 5))
        assert document.text[::2] == before + between + equals
        assert answer == (first + second) % 7
        assert document.metadata["question"] + document.metadata["answer"] == document.text


def test_languages_share_no_mark_and_the_new_one_no_pair_of_marks() -> None:
    old = {name: marks for name, marks in MARKS.items() if name != "new"}
    assert all(not set(a) & set(b) for a, b in itertools.combinations(old.values(), 2))
    new = MARKS["new"]
    for place, mark in enumerate(new):
        assert sum(marks[place] == mark for marks in old.values()) == 1
    assert all(len(set(marks) & set(new)) <= 1 for marks in old.values())


def test_noise_is_a_share_of_the_documents() -> None:
    def answers(noise: float) -> list[tuple[str, str]]:
        part = Renderings(language="b", noise=noise, count=4000, modulus=11)
        return [(document.metadata["question"], document.metadata["answer"]) for document in part.documents()]

    right, noisy = answers(0.0), answers(0.3)
    assert [question for question, _ in right] == [question for question, _ in noisy]
    wrong = sum(a != b for (_, a), (_, b) in zip(right, noisy, strict=True)) / len(right)
    assert wrong == pytest.approx(0.3 * 10 / 11, abs=0.03)
