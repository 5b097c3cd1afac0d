from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foretrain.corpus.source import Source, open_domain
from foretrain.errors import CorruptFile, RequestError
from foretrain.recipe import Domain
from foretrain.tokens import prepare as module
from foretrain.tokens.prepare import Prepared, in_turn, prepare
from foretrain.tokens.tokenizers.bpe import Bpe
from foretrain.tokens.tokenizers.byte import Byte

FRUIT = ("apple", "pear", "plum", "quince", "fig", "cherry", "melon")


def _texts(seed: int, count: int) -> list[str]:
    return [
        " ".join(FRUIT[(seed + i * (j + 3) + j) % 7] for j in range(5 + i % 9)) + f" {seed} {i}" for i in range(count)
    ]


@pytest.fixture
def domain(tmp_path: Path) -> Callable[..., Domain]:
    def make(name: str, texts: list[str], **settings: Any) -> Domain:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"id": f"{name}-{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
        return Domain(path=str(path), **{"validation": 0.2, **settings})

    return make


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the two things that should not be done twice: encoding a domain, and training a tokenizer."""
    counts = {"encoded": 0, "trained": 0, "read": 0}
    encode, build, splits = module.encode_all, Bpe.build, Source.splits

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        return counting

    monkeypatch.setattr(module, "encode_all", count("encoded", encode))
    monkeypatch.setattr(Bpe, "build", count("trained", build))
    monkeypatch.setattr(Source, "splits", count("read", splits))
    return counts


def _documents(prepared: Prepared, name: str) -> dict[str, str]:
    """Text by document id, read back from the shards."""
    found: dict[str, str] = {}
    for tokens in prepared.sets[name].values():
        place = 0
        ids = tokens.read(0, tokens.tokens).tolist()
        while place < tokens.tokens:
            end = ids.index(prepared.tokenizer.eos, place)
            found[tokens.names(place, 1)[0]] = prepared.tokenizer.decode(ids[place:end])
            place = end + 1
    return found


@pytest.mark.parametrize("part", [Byte(), Bpe(vocabulary=420)], ids=["byte", "bpe"])
def test_documents_become_tokens(tmp_path: Path, domain: Callable[..., Domain], part: Any) -> None:
    texts = [*_texts(1, 80), "with <|endoftext|> inside"]
    corpus = {"one": domain("one", texts, steer=0.2), "two": domain("two", _texts(2, 50))}
    told: list[tuple[int, str]] = []
    prepared = prepare(corpus, part, cache=tmp_path / "cache", progress=lambda *figures: told.append(figures))
    assert _documents(prepared, "one") == {f"one-{i}": text for i, text in enumerate(texts)}
    assert set(prepared.sets["one"]) == {"train", "steer", "validation"}
    assert set(prepared.sets["two"]) == {"train", "validation"}
    expected: dict[str, list[str]] = {}
    for document, split in open_domain(corpus["one"]).splits():
        expected.setdefault(split, []).append(document.text)
    for split, found in prepared.sets["one"].items():
        report = prepared.reports["one"]["splits"][split]
        assert found.documents == report["documents"] == len(expected[split])
        assert found.bytes == report["bytes"] == sum(len(text.encode()) for text in expected[split])
        ends = [0] * len(expected[split])
        assert found.tokens == report["tokens"] == sum(map(len, prepared.tokenizer.encode(expected[split]))) + len(ends)
        assert found.names(0, found.tokens) == [
            name for name in found.names(0, found.tokens) if name.startswith("one-")
        ]
    assert prepared.hashes["tokens"]["one"]["train"] == prepared.sets["one"]["train"].hash


def test_progress_is_told(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    told: list[tuple[int, str]] = []
    corpus = {"one": domain("one", ["x" * 30_000 + str(i) for i in range(10)])}
    prepare(corpus, Byte(), cache=tmp_path / "cache", progress=lambda *figures: told.append(figures))
    counts = [tokens for tokens, _ in told]
    assert (
        len(told) == 4 and counts == sorted(counts) and counts[-1] > 4 << 16 and {name for _, name in told} == {"one"}
    )


def test_is_done_once(tmp_path: Path, domain: Callable[..., Domain], counted: dict[str, int]) -> None:
    corpus = {"one": domain("one", _texts(1, 40)), "two": domain("two", _texts(2, 40))}
    cache, part = tmp_path / "cache", Bpe(vocabulary=400)
    first = prepare(corpus, part, cache=cache)
    assert counted == {"encoded": 2, "trained": 1, "read": 4}
    renamed = {"b": corpus["two"].model_copy(update={"weight": 9.0}), "a": corpus["one"]}
    for again in (prepare(corpus, part, cache=cache), prepare(renamed, part, cache=cache)):
        assert again.tokenizer.hash == first.tokenizer.hash
    assert again.hashes["tokens"]["b"] == first.hashes["tokens"]["two"], "names and weights change nothing"
    assert counted == {"encoded": 2, "trained": 1, "read": 4}


def test_is_redone_when_inputs_change(tmp_path: Path, domain: Callable[..., Domain], counted: dict[str, int]) -> None:
    corpus = {"one": domain("one", _texts(1, 40)), "two": domain("two", _texts(2, 40))}
    cache = tmp_path / "cache"
    tokenizer = prepare(corpus, Byte(), cache=cache).tokenizer
    corpus["two"] = domain("two", [*_texts(2, 40), "one more"])
    changed = prepare(corpus, Byte(), cache=cache)
    assert counted["encoded"] == 3, "only the domain that changed"
    assert sum(found.documents for found in changed.sets["two"].values()) == 41
    prepare({"one": corpus["one"].model_copy(update={"validation": 0.5})}, Byte(), cache=cache)
    assert counted["encoded"] == 4, "another split"
    prepare({"one": corpus["one"]}, Bpe(vocabulary=400), cache=cache)
    assert (counted["encoded"], counted["trained"]) == (5, 1), "another tokenizer"
    prepare({"one": corpus["one"]}, Bpe(vocabulary=400), tokenizer=tokenizer, cache=cache)
    assert (counted["encoded"], counted["trained"]) == (5, 1), "a given tokenizer takes the place of the recipe's"
    prepare(corpus, Bpe(vocabulary=400), cache=cache)
    assert counted["trained"] == 2, "another corpus to learn from"


def test_a_given_tokenizer_is_used(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    mine = Bpe(vocabulary=390).build(lambda: iter(["zz zz zz"]))
    found = prepare({"one": domain("one", _texts(1, 20))}, Byte(), tokenizer=mine, cache=tmp_path / "cache")
    assert found.tokenizer is mine and found.reports["one"]["tokenizer"] == mine.hash


def test_the_tokenizer_learns_from_the_training_split_alone(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    judged = tmp_path / "judged.jsonl"
    judged.write_text("".join(json.dumps({"text": f"walrus walrus {i}"}) + "\n" for i in range(50)))
    corpus = {"one": domain("one", _texts(1, 60), validation=str(judged))}
    vocabulary = prepare(corpus, Bpe(vocabulary=600), cache=tmp_path / "cache").tokenizer.fast.get_vocab()
    assert "Ġapple" in vocabulary and not any("walr" in token for token in vocabulary)


def test_domains_take_turns() -> None:
    short, long = ["a" * 10] * 3, ["b" * 30] * 4
    found = list(in_turn([iter(short), iter(long), iter([])]))
    assert found == ["a" * 10, "b" * 30, "a" * 10, "a" * 10, "b" * 30, "b" * 30, "b" * 30]


def test_a_damaged_cache_is_named(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    corpus, cache = {"one": domain("one", _texts(1, 40))}, tmp_path / "cache"
    path = prepare(corpus, Byte(), cache=cache).sets["one"]["train"].paths[0]
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    opened = prepare(corpus, Byte(), cache=cache).sets["one"]["train"]
    with pytest.raises(CorruptFile, match="Delete the folder"):
        opened.read(0, 100)
    path.write_bytes(content[:300])
    with pytest.raises(CorruptFile, match=str(path)):
        prepare(corpus, Byte(), cache=cache)
    (path.parent / "manifest.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"manifest\.json"):
        prepare(corpus, Byte(), cache=cache)


def test_overlap_is_found_once(tmp_path: Path, domain: Callable[..., Domain], counted: dict[str, int]) -> None:
    secret = "what is the capital of the land where the quince and the melon grow side by side"
    corpus = {"one": domain("one", _texts(1, 40)), "two": domain("two", [*_texts(2, 40), f"so: {secret}? yes"])}
    cache = tmp_path / "cache"
    items = {"task quiz": ["too short", "none of these many words is to be found in any of the documents", secret]}
    found = prepare(corpus, Byte(), items=items, cache=cache)
    assert [(entry.items, entry.number, entry.domain, entry.document) for entry in found.overlaps] == [
        ("task quiz", 2, "two", "two-40")
    ]
    assert found.warnings == ["1 of the items of task quiz is too short to be looked for in the corpus."]
    assert counted["read"] == 2, "in the same pass as the tokens"
    assert prepare(corpus, Byte(), items=items, cache=cache).overlaps == found.overlaps
    assert counted["read"] == 2
    assert prepare(corpus, Byte(), items={"other": ["pear " * 30]}, cache=cache).overlaps == []
    assert counted == {"encoded": 2, "trained": 0, "read": 4}, "a new look, but no new tokens"
    renamed = prepare({"x": corpus["two"]}, Byte(), items=items, cache=cache)
    assert [entry.domain for entry in renamed.overlaps] == ["x"] and counted["read"] == 4


def test_nothing_to_train_on(tmp_path: Path, domain: Callable[..., Domain], monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = {"one": domain("one", _texts(1, 40))}
    everything = [(document, "validation") for document, _ in open_domain(corpus["one"]).splits()]
    monkeypatch.setattr(Source, "splits", lambda source: iter(everything))
    with pytest.raises(RequestError, match=r"corpus\.one: none of its 40 documents is left to train on"):
        prepare(corpus, Byte(), cache=tmp_path / "cache")
    unused = {"one": corpus["one"].model_copy(update={"weight": 0.0})}
    assert set(prepare(unused, Byte(), cache=tmp_path / "cache").sets["one"]) == {"validation"}


def test_a_tokenizer_without_an_end(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    mine = Byte().build(lambda: iter(()))
    mine.fast.eos_token = None
    with pytest.raises(RequestError, match="ends a document"):
        prepare({"one": domain("one", _texts(1, 20))}, Byte(), tokenizer=mine, cache=tmp_path / "cache")


def test_what_was_mended_is_said(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    lines = [json.dumps({"text": text}).encode() for text in _texts(1, 40)]
    path.write_bytes(b"\n".join([*lines, b'{"text": "bad \xff byte"}', b'{"text": "  "}']) + b"\n")
    found = prepare({"raw": Domain(path=str(path))}, Byte(), cache=tmp_path / "cache")
    assert found.reports["raw"]["replaced"] == 1 and found.reports["raw"]["empty"] == 1
    assert any("1 invalid UTF-8" in note for note in found.warnings)
    assert prepare({"raw": Domain(path=str(path))}, Byte(), cache=tmp_path / "cache").warnings == found.warnings
