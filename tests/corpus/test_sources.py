"""Facts by sources of unequal quality: shares of true statements, styles, questions."""

from __future__ import annotations

from collections import Counter

import pytest

from foretrain.corpus.builtin.sources import QUALITIES, TEMPLATES, VALUES, Sources, source_names


def test_sources_are_as_right_as_their_class_and_wrong_evenly() -> None:
    corpus = Sources(count=6000, subjects=30)
    known = {
        corpus._statement(fact, way): (VALUES[corpus.true_value(fact)], way)
        for fact in range(120)
        for way in range(len(TEMPLATES))
    }
    assert len(known) == 120 * len(TEMPLATES)
    told, right, wrong, sizes = Counter[float](), Counter[float](), Counter[str](), Counter[str]()
    ways: dict[str, set[int]] = {}
    fillers: dict[str, set[str]] = {}
    for document in corpus.documents():
        name, quality = document.metadata["source"], document.metadata["quality"]
        assert document.metadata["url"].startswith(f"https://{name}.example/")
        sizes[name] += 1
        sentences = document.text.removesuffix(" .").split(" . ")
        assert len(sentences) == 4
        for sentence in sentences:
            statement, _, value = sentence.rpartition(" ")
            if statement not in known:
                filler, _, statement = statement.partition(" ")
                fillers.setdefault(name, set()).add(filler)
            truth, way = known[statement]
            ways.setdefault(name, set()).add(way)
            told[quality] += 1
            right[quality] += value == truth
            wrong[value] += value != truth
    for quality in QUALITIES:
        assert right[quality] / told[quality] == pytest.approx(quality, abs=0.02)
    assert set(wrong) == set(VALUES) and max(wrong.values()) < 2 * min(wrong.values())
    names = source_names()
    assert len(names) == len(sizes) == 32
    # Each way is used by one source of each class, so that it says nothing of quality; words tell the source.
    assert all(len(found) == 1 for found in ways.values())
    assert sorted((*ways[name], names[name]) for name in names) == sorted(
        (way, quality) for way in range(8) for quality in QUALITIES
    )
    assert len(set.union(*fillers.values())) == sum(len(found) for found in fillers.values()) == 3 * 32
    ranked = [sizes[name] for name in names]
    assert ranked[0] / ranked[3] == pytest.approx(4, rel=0.2) and ranked[0] / ranked[15] == pytest.approx(16, rel=0.3)


def test_questions_ask_for_the_true_value() -> None:
    corpus = Sources(part="questions", subjects=70, attributes=3, seed=4)
    found = list(corpus.documents())
    assert len(found) == 210 and len({document.metadata["question"] for document in found}) == 210
    for fact, document in enumerate(found):
        assert document.metadata["answer"] == corpus.true_value(fact)
        assert document.text == f"{document.metadata['question']} {VALUES[corpus.true_value(fact)]}"
    other = Sources(part="questions", subjects=70, attributes=3).documents()
    assert [each.metadata["answer"] for each in found] != [each.metadata["answer"] for each in other]
    with pytest.raises(ValueError, match="at most the number of facts"):
        Sources(subjects=1, attributes=2)
