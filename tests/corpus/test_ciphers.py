"""Ciphered languages: letters that are permuted, relatives that share some, and translations line by line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest

from foretrain.corpus.builtin.biographies import Biographies
from foretrain.corpus.builtin.ciphers import Ciphers, letters
from foretrain.corpus.document import Document
from foretrain.corpus.splits import assign
from foretrain.errors import RequestError
from foretrain.recipe import Domain
from tests.tiny import tiny_plan

TEXT = {"text": "builtin:biographies"}


def _documents(**options: Any) -> list[Document]:
    return list(Ciphers.model_validate({**TEXT, **options}).documents())


def _common(one: int, other: int, like: dict[int, int], shared: float, seed: int = 0) -> int:
    first, second = letters(one, like, shared, seed), letters(other, like, shared, seed)
    return sum(first[ord(letter)] == second[ord(letter)] for letter in ascii_lowercase)


def test_language_0_is_the_text_and_others_permute_its_letters() -> None:
    plain = [document.text for document in Biographies().documents()]
    assert [document.text for document in _documents(language=0)] == plain
    table = letters(3, {}, 0.7, 5)
    assert sorted(table[ord(letter)] for letter in ascii_lowercase) == list(ascii_lowercase)
    written = [document.text for document in _documents(language=3, seed=5)]
    back = {ord(table[ord(letter)]): letter for letter in ascii_lowercase}
    back |= {ord(table[ord(letter)].upper()): letter.upper() for letter in ascii_lowercase}
    assert [text.translate(back) for text in written] == plain
    assert all(a != b for a, b in zip(written, plain, strict=True))
    digits = [[letter for letter in text if not letter.isalpha()] for text in (written[0], plain[0])]
    assert digits[0] == digits[1] and [c.isupper() for c in written[0]] == [c.isupper() for c in plain[0]]


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.7, 0.95])
def test_relatives_share_their_share_of_letters(shared: float) -> None:
    like = {2: 1, 3: 2, 5: 0}
    expected = 26 - max(2, round(26 * (1 - shared)))
    for one, other in like.items():
        assert _common(one, other, like, shared) == expected
    assert _common(1, 0, like, shared) == 0, "no relative of the text itself"
    chance = [_common(1, 4, like, shared, seed) for seed in range(40)]
    assert 0.4 < sum(chance) / 40 < 1.8, "two permutations have about one letter in common"


def test_languages_are_the_same_in_every_domain_and_differ_by_seed() -> None:
    assert letters(2, {2: 1}, 0.7, 0) == letters(2, {2: 1, 9: 1}, 0.7, 0)
    assert letters(2, {2: 1}, 0.7, 0) != letters(2, {2: 1}, 0.7, 1) != letters(3, {2: 1}, 0.7, 1)


def test_translations_stand_sentence_by_sentence() -> None:
    both = _documents(language=1, beside=0)
    own, other = _documents(language=1), _documents(language=0)
    for pair, one, two in zip(both, own, other, strict=True):
        lines = [line.split(" || ") for line in pair.text.split("\n")]
        assert " ".join(line[1] for line in lines) == one.text
        assert " ".join(line[0] for line in lines) == two.text
        assert len(lines) == 6, "a biography has six sentences"
    turned = _documents(language=1, beside=0, template="{own}\t{other}")[0].text.split("\n")[0].split("\t")
    assert turned == both[0].text.split("\n")[0].split(" || ")[::-1]


def test_origin_holds_out_the_same_documents_in_every_language() -> None:
    domain = Domain(path="builtin:ciphers", group="origin", validation=0.3)
    splits = [
        [assign(document, domain) for document in _documents(language=language, **more)]
        for language, more in ((0, {}), (1, {}), (1, {"beside": 2}))
    ]
    assert splits[0] == splits[1] == splits[2] and 60 < splits[0].count("validation") < 120
    assert splits[0] != [assign(document, Domain(path="x", validation=0.3)) for document in _documents(language=1)]


def test_any_text_may_be_written_and_keeps_its_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETRAIN_DATA", str(tmp_path))
    file = tmp_path / "news.jsonl.gz"
    records = [{"text": "Héllo. World!\n\nAgain", "topic": "sport"}, {"text": "b", "topic": "war"}]
    file.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in records).encode(), mtime=0))
    found = list(Ciphers(language=0, text="data:news.jsonl.gz", beside=1).documents())
    assert [one.metadata["topic"] for one in found] == ["sport", "war"]
    lines = [line.split(" || ") for line in found[0].text.split("\n")]
    assert [line[1] for line in lines] == ["Héllo.", "World!", "Again"]
    before = Ciphers(language=0, text="data:news.jsonl.gz").content_hash()
    file.write_bytes(gzip.compress(json.dumps(records[1]).encode(), mtime=0))
    assert Ciphers(language=0, text="data:news.jsonl.gz").content_hash() != before


def test_a_run_reads_several_languages() -> None:
    corpus = {
        f"l{number}": {"path": "builtin:ciphers", "group": "origin", "options": {"language": number, **TEXT}}
        for number in (0, 1)
    }
    plan = tiny_plan(corpus=corpus)
    sizes = {name: splits["train"].documents for name, splits in plan.prepared.sets.items()}
    assert len(set(sizes.values())) == 1, "held out alike"


def test_wrong_options_are_refused_in_words() -> None:
    def refused(said: str, **options: Any) -> None:
        with pytest.raises(RequestError, match=said):
            tiny_plan(corpus={"text": {"path": "builtin:ciphers", "options": {**TEXT, **options}}})

    refused("languages 1, 2, 1 are like each other", like={1: 2, 2: 1})
    refused("language 0 is the text itself", like={0: 1})
    refused(r"beside \(1\) should be another language", beside=1)
    refused("should be `builtin:NAME` .another one., `data:FILE` or `hub:NAME`", text="mine.jsonl")
    refused("should be `builtin:NAME`", text="builtin:ciphers")
    refused("names no field|just the name of a field", template="{} || {own}")
    refused("shared", shared=1.0)
