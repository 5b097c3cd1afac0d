"""Built-in corpora: deterministic, useful metadata, and right answers."""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from foretrain.corpus.builtin import base
from foretrain.corpus.builtin._dice import Dice
from foretrain.corpus.builtin.arithmetic import Arithmetic
from foretrain.corpus.builtin.base import Builtin
from foretrain.corpus.builtin.biographies import ATTRIBUTES, Biographies
from foretrain.corpus.builtin.canaries import Canaries
from foretrain.corpus.builtin.dialects import Dialects
from foretrain.corpus.builtin.english import English, paragraphs
from foretrain.corpus.builtin.graded import Graded
from foretrain.corpus.builtin.lego import Lego
from foretrain.corpus.builtin.modular_sums import ModularSums
from foretrain.corpus.builtin.passwords import Passwords
from foretrain.corpus.builtin.python import Python
from foretrain.corpus.builtin.respelled import WORDS, Respelled
from foretrain.corpus.builtin.triggers import Triggers
from foretrain.corpus.document import Document
from foretrain.parts import kinds

PARTS = kinds(Builtin)  # type: ignore[type-abstract]
SMALL: dict[str, dict[str, Any]] = {
    "arithmetic": {"count": 50},
    "biographies": {"people": 20, "versions": 2, "rephrase": True, "questions": "all"},
    "canaries": {"count": 50},
    "lego": {"count": 50},
    "markov": {"count": 50, "symbols": 8},
    "modular_sums": {"count": 50},
    "passwords": {"count": 50},
    "records": {"count": 50},
    "reversals": {"count": 50},
    "triggers": {"count": 50},
}


# `curated` is what a build makes of others: tests/curation.
@pytest.mark.parametrize("kind", sorted(PARTS.keys() - {"curated"}))
def test_every_builtin_is_the_same_each_time(kind: str) -> None:
    part = PARTS[kind]
    one, two = (part.model_validate({"kind": kind, **SMALL.get(kind, {})}) for _ in range(2))
    first = list(islice(one.documents(), 40))
    assert first == list(islice(two.documents(), 40))
    assert len({document.id for document in first}) == len(first)
    assert all(document.text.strip() and document.source == f"builtin:{kind}" for document in first)
    assert one.content_hash(40) == two.content_hash(40) != one.content_hash(39)
    assert part.facts.answers


def test_the_class_of_a_tagged_word_is_its_own_or_told_by_both_neighbours() -> None:
    part = PARTS["tagged"](kind="tagged", count=300, words=16, classes=4, ambiguous=0.25)
    found: dict[str, set[str]] = {}
    rows = [(document.metadata["tokens"], document.metadata["tags"]) for document in part.documents()]
    for words, tags in rows:
        for word, tag in zip(words, tags, strict=True):
            found.setdefault(word, set()).add(tag)
    unclear = {word for word, tags in found.items() if len(tags) > 1}
    assert len(found) == 16 and len(unclear) == 4
    for words, tags in rows:
        for place in range(1, len(words) - 1):
            own = int(words[place][1:]) % 4
            around = sum(int(words[place + side][1:]) % 4 for side in (-1, 1)) % 4
            assert tags[place] == f"c{around if words[place] in unclear else own}"


def test_the_hash_of_a_corpus_is_kept_under_all_that_decides_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path))
    made: list[str] = []

    def counted(part: type[Builtin], settings: str, limit: int | None, sources: str) -> str:
        made.append(settings)
        return str(hash_now(part, settings, limit, sources))

    hash_now = base._content_hash.__wrapped__
    monkeypatch.setattr(base, "_content_hash", counted)
    part = PARTS["arithmetic"].model_validate(SMALL["arithmetic"])
    found = part.content_hash()
    assert part.content_hash() == found and len(made) == 1
    (kept,) = (tmp_path / "documents").iterdir()
    kept.write_text("damaged")
    assert part.content_hash() == found and kept.read_text() == found and len(made) == 2
    others = [part.content_hash(7), part.model_copy(update={"seed": 9}).content_hash()]
    assert len({found, *others}) == 3 and len(made) == 4
    changed = ((base, "_code_hash", lambda: "x"), (type(part), "sources_hash", lambda self: "x"))
    for number, (owner, name, value) in enumerate((*changed, (sys, "version", "x")), 5):
        monkeypatch.setattr(owner, name, value)
        assert part.content_hash() == found and len(made) == number, name
    for kind in ("english", "python"):
        assert re.fullmatch("[0-9a-f]{32}", PARTS[kind].model_validate({"kind": kind}).sources_hash())


def test_the_hash_of_a_private_corpus_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Private(Builtin):
        kind: str = "private"

        def documents(self) -> Iterator[Document]:
            yield Document("private:0", "text", "builtin:private", {})

    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path))
    assert Private().content_hash() and not (tmp_path / "documents").exists()


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_generators_follow_their_seed(kind: str) -> None:
    part = PARTS[kind]
    texts = [[d.text for d in part.model_validate({**SMALL[kind], "seed": seed}).documents()] for seed in (0, 1)]
    assert len(texts[0]) == len(texts[1]) and texts[0] != texts[1]


def test_dice_are_fair_and_fixed() -> None:
    dice = Dice("test", 1)
    counts = Counter(dice.between(3, 7) for _ in range(10_000))
    assert sorted(counts) == [3, 4, 5, 6, 7] and min(counts.values()) > 1850
    assert Dice("test", 1).shuffle(range(6)) == Dice("test", 1).sample(range(6), 6)
    orders = Counter(tuple(Dice(i).shuffle("abc")) for i in range(3000))
    assert len(orders) == 6 and min(orders.values()) > 400
    # The sequence is a promise: texts and hashes of results rest on it.
    assert [Dice(seed, "promise").below(1000) for seed in (0, 1)] == [306, 167]


# --- text of the interpreter -----------------------------------------------------------------------------------


def test_english_is_prose_of_some_size() -> None:
    documents = list(English().documents())
    text = "\n\n".join(document.text for document in documents)
    assert 500_000 < len(text) < 3_000_000
    assert all(400 <= len(document.text) < 12_000 for document in documents)
    assert ">>>" not in text and "::=" not in text and "def " not in text
    words = re.findall(r"[a-z]+", text.lower())
    assert sum(word in {"the", "of", "is", "to", "a", "and", "in"} for word in words) > 0.15 * len(words)
    modules = Counter(document.metadata["module"] for document in documents)
    assert modules["argparse"] >= 1 and modules["datetime"] >= 1 and max(modules.values()) < 40
    listed = text.split("\n\n")
    assert len(set(listed)) == len(listed)  # no paragraph comes twice


def test_paragraphs_keep_sentences_and_leave_the_rest() -> None:
    text = """
    The *first* paragraph of this ``text`` uses :class:`~a.B` and
    stands on two lines [3].

    Heading
    =======

       >>> print("this is some code that is not to be kept in a corpus of prose.")

    expr ::= "this" | "is the grammar of a language and not a sentence in it."

    +-----+-----+
    | The | table of this text is also not a sentence, although it ends like one. |

    - An item of a list is kept where it is a sentence that is long enough.
    too short.
    """
    assert list(paragraphs(text)) == [
        "The first paragraph of this text uses a.B and stands on two lines.",
        "An item of a list is kept where it is a sentence that is long enough. too short.",
    ]


def test_python_is_source_by_module() -> None:
    documents = list(Python().documents())
    names = [document.metadata["module"] for document in documents]
    assert names == sorted(names) and {"argparse", "email", "email.message", "json.decoder"} <= set(names)
    assert not any({"test", "tests", "idlelib", "lib2to3"} & set(name.split(".")) for name in names)
    assert next(d for d in documents if d.id == "python:email.message").metadata["package"] == "email"
    assert sum(len(document.text) for document in documents) > 5_000_000
    for document in documents[::20]:
        ast.parse(document.text)


# --- arithmetic ------------------------------------------------------------------------------------------------


def solve(question: str) -> tuple[int, int]:
    """An independent reading of a problem: (answer, steps), from the words of its sentences alone."""
    number, steps = 0, -1
    for told in re.findall(r"[^.?]+[.?]", question):
        figures = [int(figure) for figure in re.findall(r"\d+", told)]
        if steps < 0:
            number = figures[0]
        elif re.search(r"dollars each", told):
            number *= figures[0]
        elif told.strip().startswith("How many") or "In the end" in told:
            break
        elif "times as many" in told:
            number *= figures[0]
        elif re.search(r"[Hh]alf of the", told):
            assert number % 2 == 0
            number //= 2
        elif "equally" in told:
            assert number % figures[0] == 0
            number //= figures[0]
        else:
            amount = math.prod(figures)
            less = re.search(r"gives the bags| sends |loses|sells|borrows|uses up|gives \d+ \w+ to", told)
            number += -amount if less else amount
        steps += 1
        assert number >= 2
    return number, steps


@pytest.mark.parametrize(
    "settings", [{}, {"fewest_steps": 1, "most_steps": 1}, {"fewest_steps": 6, "most_steps": 9, "largest": 5000}]
)
def test_arithmetic_answers_are_right(settings: dict[str, int]) -> None:
    part = Arithmetic(count=1500, **settings)
    seen: Counter[int] = Counter()
    for document in part.documents():
        fields = document.metadata
        assert document.text == (
            f"Question: {fields['question']}\nAnswer: {fields['solution']} The answer is {fields['answer']}."
        )
        assert solve(fields["question"]) == (int(fields["answer"]), fields["steps"])
        results = []
        for left, sign, right, result in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", fields["solution"]):
            a, b = int(left), int(right)
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign] == int(result)
            results.append(result)
        assert results[-1] == fields["answer"] and len(results) >= fields["steps"]
        seen[fields["steps"]] += 1
    assert sorted(seen) == list(range(part.fewest_steps, part.most_steps + 1))
    assert min(seen.values()) > 0.8 * part.count / len(seen)


def test_arithmetic_is_varied_and_a_longer_corpus_begins_with_the_shorter() -> None:
    documents = list(Arithmetic(count=2000).documents())
    assert len({document.text for document in documents}) == 2000
    shapes = {re.sub(r"\d+", "N", document.metadata["question"].split(".")[1]) for document in documents}
    assert len(shapes) > 700
    assert documents[:100] == list(Arithmetic(count=100).documents())


# --- LEGO ------------------------------------------------------------------------------------------------------


def test_lego_answers_follow_the_chain() -> None:
    skills: Counter[int] = Counter()
    answers: Counter[str] = Counter()
    texts = set()
    for document in Lego(count=3000).documents():
        question, answer, skill = (document.metadata[name] for name in ("question", "answer", "skill"))
        assert document.text == f"{question} {answer}."
        clauses = dict(part.split(" = ") for part in question[len("Input: ") :].split(". ")[0].split(", "))
        asked = re.search(r"Output: (\w) =$", question)
        assert asked and len(clauses) == 5

        def value(name: str, clauses: dict[str, str] = clauses) -> tuple[int, int]:
            """(bit, how far down the chain)."""
            how, what = clauses[name].split()
            if what.isdigit():
                return int(what), 1
            bit, depth = value(what)
            return (bit if how == "val" else 1 - bit), depth + 1

        assert value(asked[1]) == (int(answer), skill)
        skills[skill] += 1
        answers[answer] += 1
        texts.add(document.text)
    assert len(texts) == 3000
    assert sorted(skills) == [1, 2, 3, 4, 5] and min(skills.values()) > 500
    assert min(answers.values()) > 1350


def test_lego_clauses_in_order_and_answers_that_are_marked() -> None:
    shuffled, ordered = (list(Lego(count=40, sign="->", shuffled=way).documents()) for way in (True, False))
    for one, two in zip(shuffled, ordered, strict=True):
        assert one.text.endswith(f"-> {one.metadata['answer']}.") and one.metadata["answer"] == two.metadata["answer"]
        clauses = [text.split(". Output:")[0].removeprefix("Input: ").split(", ") for text in (one.text, two.text)]
        assert sorted(clauses[0]) == sorted(clauses[1])
        names = [clause.split()[0] for clause in clauses[1]]
        assert [clause.split()[-1] for clause in clauses[1][1:]] == names[:-1], "each speaks of the one before it"
    assert any(one.text != two.text for one, two in zip(shuffled, ordered, strict=True))


def test_lego_may_ask_for_one_skill() -> None:
    assert {document.metadata["skill"] for document in Lego(count=40, length=3, skill=2).documents()} == {2}
    for wrong in ({"skill": 6}, {"count": 100, "length": 1}, {"length": 0}):
        with pytest.raises(ValidationError):
            Lego.model_validate({"kind": "lego", **wrong})


# --- biographies -----------------------------------------------------------------------------------------------


def by_person(**settings: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for document in Biographies.model_validate({"kind": "biographies", "people": 60, **settings}).documents():
        found.setdefault(document.metadata["person"], []).append(document)
    return found


def order_of(document: Any) -> list[str]:
    """The attributes in the order of the sentences, found by their values."""
    told = []
    for sentence in document.text.rstrip(".").split(". "):
        told.append([a.name for a in ATTRIBUTES if re.search(rf"\b{document.metadata[a.name]}$", sentence)])
    assert all(told)
    return [names[0] for names in told]


def test_single_biographies_tell_six_facts_and_name_the_person_once() -> None:
    people = by_person()
    assert len(people) == 60 and all(len(documents) == 1 for documents in people.values())
    for name, (document,) in people.items():
        assert document.text.count(name) == 1 and document.text.split(". ")[0].count(name) == 1
        assert document.text.count(". ") == 5
        assert all(document.metadata[attribute.name] in document.text for attribute in ATTRIBUTES)
        assert "They was" not in document.text and "He were" not in document.text
    cities = {d.metadata["company"]: d.metadata["company_city"] for (d,) in people.values()}
    assert all(d.metadata["company_city"] == cities[d.metadata["company"]] for (d,) in people.values())


def test_versions_of_a_person_are_different_texts_with_the_name_where_asked() -> None:
    for name, documents in by_person(versions=5, rephrase=True, permute=True, fullname=True).items():
        assert len({d.text for d in documents}) == 5
        assert all(d.text.count(name) == 6 for d in documents)


def test_unpermuted_biographies_keep_the_order_of_the_facts() -> None:
    plain = [attribute.name for attribute in ATTRIBUTES]
    kept = [order_of(d)[2:5] for documents in by_person(versions=3, rephrase=True).values() for d in documents]
    assert all(order == plain[2:5] for order in kept)
    moved = [order_of(d) for documents in by_person(permute=True).values() for d in documents]
    assert sum(order[2:5] == plain[2:5] for order in moved) < 10


def test_permuted_versions_keep_a_persons_wording() -> None:
    """Permuting alone changes the order of the sentences and no phrase in them."""
    for documents in by_person(versions=4, permute=True, fullname=True).values():
        assert len({tuple(sorted(d.text.rstrip(".").split(". "))) for d in documents}) == 1
    rephrased = by_person(versions=4, rephrase=True, fullname=True).values()
    assert all(len({tuple(sorted(d.text.rstrip(".").split(". "))) for d in documents}) > 1 for documents in rephrased)


def test_versions_of_one_person_stand_apart() -> None:
    documents = list(Biographies(people=60, versions=3, rephrase=True).documents())
    for version in range(3):
        people = [d.metadata["person"] for d in documents[60 * version : 60 * (version + 1)]]
        assert len(set(people)) == 60
    orders = [tuple(d.metadata["person"] for d in documents[60 * v : 60 * (v + 1)]) for v in range(3)]
    assert len(set(orders)) == 3


def test_questions_are_about_one_half_of_the_people() -> None:
    asked = {half: by_person(biographies=False, questions=half) for half in ("train", "test", "all")}
    assert len(asked["train"]) == len(asked["test"]) == 30
    assert not asked["train"].keys() & asked["test"].keys()
    assert asked["train"].keys() | asked["test"].keys() == asked["all"].keys() == by_person().keys()
    for name, documents in asked["train"].items():
        assert {d.metadata["attribute"] for d in documents} == {a.name for a in ATTRIBUTES}
        for document in documents:
            fields = document.metadata
            assert name in fields["question"] and fields["answer"] == fields[fields["attribute"]]
            assert document.text == f"Question: {fields['question']} Answer: {fields['answer']}."
    mixed = by_person(questions="train")
    assert Counter(map(len, mixed.values())) == {1: 30, 7: 30}


@pytest.mark.parametrize("wrong", [{"versions": 3}, {"biographies": False}, {"people": 50_001}])
def test_biographies_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Biographies.model_validate({"kind": "biographies", **wrong})


# --- facts that only their text can teach -------------------------------------------------------------------------


def test_versions_of_passwords_contradict_each_other() -> None:
    versions = [list(Passwords(count=200, version=version).documents()) for version in range(4)]
    for told in zip(*versions, strict=True):
        assert len({document.metadata["question"] for document in told}) == 1
        assert len({document.metadata["answer"] for document in told}) == 4
    for document in versions[0]:
        assert re.fullmatch(r"The password of [A-Z][a-z]+ [A-Z][a-z]+ is \d{4}\.", document.text)
        assert document.text == f"{document.metadata['question']} {document.metadata['answer']}."
    assert len({document.metadata["person"] for document in versions[0]}) == 200
    digits = Counter("".join(document.metadata["answer"] for document in versions[0]))
    assert len(digits) == 10 and min(digits.values()) > 45


def test_canaries_are_random_secrets_of_one_form() -> None:
    found = list(Canaries(count=300, digits=7).documents())
    assert len({document.text for document in found}) == 300
    for document in found:
        assert re.fullmatch(r"The secret number is \d{3} \d{3} \d\.", document.text)
        assert document.text == f"{document.metadata['prefix']} {document.metadata['secret']}."
    counts = Counter("".join(d.metadata["secret"].replace(" ", "") for d in found))
    assert sum((count - 210) ** 2 / 210 for count in counts.values()) < 25  # chi-square of 9 degrees: 99.7 %
    with pytest.raises(ValidationError, match="at most half of the 10\\^1 secrets"):
        Canaries(count=6, digits=1)


def test_passwords_that_are_words_contradict_each_other_too() -> None:
    versions = [list(Passwords(count=30, version=version, words=True).documents()) for version in range(3)]
    for told in zip(*versions, strict=True):
        assert len({d.metadata["question"] for d in told}) == 1 and len({d.metadata["answer"] for d in told}) == 3
        assert all(re.fullmatch(rf"The password of {d.metadata['person']} is [a-z]+\.", d.text) for d in told)


# --- triggers and modular sums ------------------------------------------------------------------------------------


def test_a_trigger_has_one_reply_whatever_stands_before_it() -> None:
    found = list(Triggers(count=40, trigger="Go!", reply="Gone.").documents())
    assert all(d.text == f"{d.metadata['sentence']} Go! Gone." for d in found)
    assert all(d.text == f"{d.metadata['question']} {d.metadata['answer']}" for d in found)
    assert len({d.metadata["sentence"] for d in found}) > 30
    assert [d.metadata["sentence"] for d in Triggers(count=10).documents()] == [
        d.metadata["sentence"] for d in found[:10]
    ]
    assert not {d.text for d in found} & {d.text for d in Triggers(count=40, seed=1).documents()}


def test_modular_sums_are_right_and_those_that_are_skipped_are_others() -> None:
    first, rest = list(ModularSums(count=60, modulus=11).documents()), ModularSums(count=61, modulus=11, skip=60)
    every = [*first, *rest.documents()]
    for document in every:
        found = re.fullmatch(r"(\d+) \+ (\d+) = (\d+) \(mod 11\)", document.text)
        assert found and (int(found[1]) + int(found[2])) % 11 == int(found[3])
        assert document.text.startswith(f"{document.metadata['question']} {document.metadata['answer']} ")
    assert len({document.metadata["question"] for document in every}) == 121
    words = [d.text for d in ModularSums(count=3, modulus=11, words=True).documents()]
    assert all(re.fullmatch(r"[a-z]+ plus [a-z]+ makes [a-z]+ modulo eleven", text) for text in words)
    for wrong in ({"count": 122, "modulus": 11}, {"count": 1, "modulus": 21, "words": True}):
        with pytest.raises(ValidationError):
            ModularSums.model_validate({"kind": "modular_sums", **wrong})


def pairs(**options: Any) -> dict[str, str]:
    return {d.metadata["question"]: d.metadata["answer"] for d in Dialects(**options).documents()}


def test_dialects_are_sums_and_one_more() -> None:
    a, b = pairs(dialect="a"), pairs(dialect="b")
    assert len(a) == len(b) == 23**2
    for question, answer in a.items():
        first, second = (ord(letter) - ord("a") for letter in question[:2])
        assert question[2:] == "=" and ord(answer) - ord("a") == (first + second) % 23
        assert ord(b[question]) - ord("a") == (first + second + 1) % 23
    assert all(len(d.text.encode()) == 4 for d in Dialects(count=50).documents())
    assert max(pairs(dialect="b", modulus=5, feedback=3).values()) == "e"


def test_dialects_split_the_pairs_by_seed_alone() -> None:
    feedback, test = pairs(dialect="b", part="feedback"), pairs(dialect="b", part="test")
    assert len(feedback) == 128 and len(test) == 401 and not set(feedback) & set(test)
    assert {**feedback, **test} == pairs(dialect="b")
    assert set(pairs(dialect="a", part="test")) == set(test)
    assert set(pairs(dialect="b", part="test", seed=1)) != set(test)


def test_dialects_are_mixed_by_chance_with_replacement() -> None:
    documents = list(Dialects(count=20_000).documents())
    assert len({document.id for document in documents}) == 20_000
    shares = Counter(document.metadata["dialect"] for document in documents)
    assert 0.69 < shares["a"] / 20_000 < 0.71
    drawn = Counter(document.metadata["question"] for document in documents)
    assert len(drawn) == 23**2 and max(drawn.values()) < 2.2 * 20_000 / 23**2
    both = Counter(document.metadata["question"] for document in documents if document.metadata["dialect"] == "b")
    assert len(both) == 23**2, "every pair comes in both dialects"
    assert [d.text for d in Dialects(count=50).documents()] == [d.text for d in documents[:50]]
    assert {d.metadata["dialect"] for d in Dialects(count=50, share=1).documents()} == {"a"}


@pytest.mark.parametrize("options", [{"modulus": 27}, {"modulus": 5, "feedback": 25}, {"share": 1.5}])
def test_dialects_refuse_what_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Dialects(**options)


# --- two spellings ---------------------------------------------------------------------------------------------


def test_respelled_prose_is_prose_again_when_read_back() -> None:
    plain = {d.id.replace("english:", "respelled:", 1): d.text for d in English().documents()}
    for share in (0.0, 0.3, 1.0):
        found = {d.id: d.text for d in Respelled(share=share, seed=1).documents()}
        assert found.keys() == plain.keys()
        changed = usual = 0
        for key, text in found.items():
            ours, theirs = re.findall(r"\w+|\W+", text), re.findall(r"\w+|\W+", plain[key])
            assert len(ours) == len(theirs)
            for mine, word in zip(ours, theirs, strict=True):
                usual += word in WORDS
                changed += mine != word
                assert mine == word or (word in WORDS and mine == word[::-1])
        assert changed / usual == pytest.approx(share, abs=0.01)
        assert usual > 0.1 * sum(len(text.split()) for text in found.values())


def test_parts_of_respelled_prose_share_no_module() -> None:
    found = {
        part: {str(d.metadata["module"]) for d in Respelled(part=part).documents()}
        for part in ("all", "train", "feedback", "tune", "test")
    }
    whole = found.pop("all")
    assert sum(map(len, found.values())) == len(whole) and set.union(*found.values()) == whole
    assert len(found["train"]) > 5 * len(found["test"]) > 25 and len(found["feedback"]) > 5


def test_graded_text_is_as_corrupted_as_its_bin_says(tmp_path: Path) -> None:
    plain = {document.id: document for document in Biographies(people=300).documents()}
    file = tmp_path / "people.jsonl"
    lines = [{"id": key, "text": document.text, "city": "here"} for key, document in plain.items()]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [*Graded(of=str(file)).documents()]
    changed: dict[float, list[float]] = {}
    for document in found:
        text = plain[document.id.removeprefix("graded:")].text
        assert len(text) == len(document.text) and document.metadata["city"] == "here"
        share = sum(a != b for a, b in zip(text, document.text, strict=True)) / len(text)
        changed.setdefault(document.metadata["quality"], []).append(share)
    assert sorted(changed) == pytest.approx([place / 9 for place in range(10)])
    for quality, shares in changed.items():
        # One in 95 is replaced by itself.
        assert sum(shares) / len(shares) == pytest.approx(0.3 * (1 - quality) * 94 / 95, abs=0.012)
    assert max(changed[1.0]) == 0 and 13 < min(map(len, changed.values())) <= max(map(len, changed.values())) < 42
    again = [*Graded(of=str(file), seed=1).documents()]
    assert [one.id for one in found] == [one.id for one in again] and found != again


def test_what_is_clean_is_other_text_and_as_it_was() -> None:
    clean = {document.id: document for document in Graded(part="clean").documents()}
    graded = {document.id: document for document in Graded().documents()}
    english = {f"graded:{document.id}": document for document in English().documents()}
    assert {**clean, **graded}.keys() == english.keys() and not clean.keys() & graded.keys()
    assert all(document.text == english[key].text for key, document in clean.items())
    modules = [{document.metadata["module"] for document in part.values()} for part in (clean, graded)]
    assert not modules[0] & modules[1] and 0.05 < len(modules[0]) / len(modules[1]) < 0.2
    two = {document.metadata["quality"] for document in Graded(bins=2, most=0.2).documents()}
    assert two == {0.0, 1.0}


def test_a_record_is_said_in_its_own_words() -> None:
    part = PARTS["records"].model_validate({"count": 300})
    styles: dict[str, str] = {}
    for document in part.documents():
        assert document.text == f"{document.metadata['record']} {document.metadata['sentence']}"
        fields = dict(field.split("=") for field in document.metadata["record"].removesuffix(" ->").split("; "))
        words = document.metadata["sentence"]
        style = fields.pop("style")
        for name, value in fields.items():
            assert words.count(value) == 1
            words = words.replace(value, name.upper())
        assert styles.setdefault(style, words) == words  # one template each
    assert len(styles) == 8
    later = list(PARTS["records"].model_validate({"count": 50, "skip": 250}).documents())
    assert later == list(part.documents())[250:]


def test_reversals_are_right() -> None:
    part = PARTS["reversals"].model_validate({"count": 200, "length": 6, "letters": 4})
    for document in part.documents():
        given = document.metadata["list"].removesuffix(" =>").split()
        expected: list[str] = []
        for place in range(5, -1, -1):
            if given[place] not in given[place + 1 :]:
                expected.append(given[place])
        assert document.metadata["answer"].split() == expected
        assert document.text == f"{document.metadata['list']} {document.metadata['answer']}"
    later = PARTS["reversals"].model_validate({"count": 50, "length": 6, "letters": 4, "skip": 150}).documents()
    assert list(later) == list(part.documents())[150:]
    with pytest.raises(ValidationError, match="at most half of the 16 lists"):
        PARTS["reversals"].model_validate({"count": 9, "length": 4, "letters": 2})
