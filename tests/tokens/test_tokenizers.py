from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from foretrain.errors import RequestError
from foretrain.parts import find
from foretrain.tokens import reserved
from foretrain.tokens.tokenizer import TextTokenizer
from foretrain.tokens.tokenizers.base import Tokenizer
from foretrain.tokens.tokenizers.bpe import Bpe
from foretrain.tokens.tokenizers.byte import Byte
from foretrain.tokens.tokenizers.pretrained import Pretrained

TEXTS = [f"the {size} {animal} sat on the {place}, {number} times" for size, animal, place, number in itertools.product(
    ("small", "large"), ("cat", "dog", "walrus"), ("mat", "chair", "roof"), range(100, 110))]  # fmt: skip
INJECTION = "a <|endoftext|> b<|pad|><|mask|> <|reserved_5|>"


def _none() -> Iterator[str]:
    raise AssertionError("a tokenizer that is not trained reads no text")


def _bpe(vocabulary: int = 430, **settings_: object) -> TextTokenizer:
    return Bpe(vocabulary=vocabulary, **settings_).build(lambda: iter(TEXTS))


BYTE = Byte().build(_none)
BPE = _bpe()


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_bytes_are_the_utf8_bytes(text: str) -> None:
    (ids,) = BYTE.encode([text])
    assert ids == [128 + byte for byte in text.encode()]
    assert BYTE.decode(ids) == text


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_bpe_gives_every_text_back(text: str) -> None:
    (ids,) = BPE.encode([text])
    assert BPE.decode(ids) == text and all(128 <= number < BPE.vocabulary for number in ids)


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
def test_layout(tokenizer: TextTokenizer) -> None:
    assert (tokenizer.eos, tokenizer.bos, tokenizer.pad, tokenizer.mask) == (0, 0, 1, 2)
    names = tokenizer.fast.convert_ids_to_tokens(list(range(128)))
    assert names == ["<|endoftext|>", "<|pad|>", "<|mask|>", *(f"<|reserved_{i}|>" for i in range(3, 128))]
    assert [tokenizer.fast.decode([128 + byte]) for byte in b"aZ 0\n"] == ["a", "Z", " ", "0", "\n"]
    assert tokenizer.vocabulary == len(tokenizer.fast) == 1 + max(tokenizer.fast.get_vocab().values())


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
def test_text_cannot_inject_special_tokens(tokenizer: TextTokenizer) -> None:
    assert 0 in tokenizer.fast(INJECTION).input_ids, "which the transformers tokenizer does recognise"
    (ids,) = tokenizer.encode([INJECTION])
    assert min(ids) >= 128 and tokenizer.decode(ids) == INJECTION
    assert tokenizer.decode([0, *ids, 2], special=False) == INJECTION


@pytest.mark.parametrize("tokenizer", [BYTE, BPE], ids=["byte", "bpe"])
@pytest.mark.parametrize("model", [None, "llama", "gpt2", "bert"])
def test_transformers_loads_what_is_saved(tmp_path: Path, tokenizer: TextTokenizer, model: str | None) -> None:
    tokenizer.save(tmp_path)
    if model is not None:  # beside a model's config, as in an export
        sizes = {"vocab_size": tokenizer.vocabulary, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model, **sizes}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["the small walrus, 101 times", "été  \n\tтекст 🙂", ""]
    assert [loaded(text).input_ids for text in texts] == tokenizer.encode(texts)
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.mask_token_id, len(loaded)) == (
        0,
        1,
        2,
        tokenizer.vocabulary,
    )
    again = TextTokenizer.load(tmp_path)
    assert again.hash == tokenizer.hash and again.encode(texts) == tokenizer.encode(texts)


def test_hash_is_of_content() -> None:
    assert _bpe().hash == BPE.hash
    assert len({BYTE.hash, BPE.hash, _bpe(420).hash, _bpe(digits="single").hash}) == 4
    before = BPE.hash
    BPE.fast(["one", "one two three"], padding=True, truncation=True, max_length=2)  # sets state of its engine
    assert TextTokenizer(BPE.fast).hash == before
    assert len(BPE.encode(["one two three four"])[0]) > 2


def test_another_end_of_document_is_another_hash(tmp_path: Path) -> None:
    BPE.save(tmp_path)
    changed = Pretrained(path=str(tmp_path), eos="<|reserved_7|>").build(_none)
    assert changed.eos == 7 and changed.hash != BPE.hash and changed.encode(TEXTS[:3]) == BPE.encode(TEXTS[:3])


def test_bpe_merges_what_is_frequent() -> None:
    assert BPE.vocabulary == 430
    assert len(BPE.encode([" the walrus"])[0]) <= 3
    assert _bpe(384).encode(TEXTS[:5]) == BYTE.encode(TEXTS[:5]), "no merges are left at the smallest vocabulary"


def test_bpe_stops_when_pairs_run_out() -> None:
    few = Bpe(vocabulary=5000).build(lambda: iter(["ab ab ab"]))
    assert few.vocabulary == 384 + 2  # "ab" and " ab"
    rare = Bpe(vocabulary=5000, frequency=3).build(lambda: iter(["ab ab ab", "cd cd"]))
    assert rare.fast.convert_tokens_to_ids("ab") is not None and "cd" not in rare.fast.get_vocab()


def test_digits() -> None:
    assert len(BPE.encode(["105"])[0]) < 3
    single = _bpe(digits="single")
    assert len(single.encode(["105"])[0]) == 3 and single.decode(single.encode(["x 105"])[0]) == "x 105"


def test_bpe_reads_no_more_than_its_sample() -> None:
    read = []

    def texts() -> Iterator[str]:
        for number in range(100):
            read.append(number)
            yield "é" * 50  # a hundred bytes

    Bpe(sample=1000).build(texts)
    assert len(read) == 10


def test_parts_are_found_by_kind() -> None:
    assert [find(Tokenizer, kind).name() for kind in ("byte", "bpe", "pretrained")] == ["byte", "bpe", "pretrained"]
    assert [find(Tokenizer, kind).trained for kind in ("byte", "bpe", "pretrained")] == [False, True, False]


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[..., Path]:
    def save(**special: str) -> Path:
        words = {word: number for number, word in enumerate(["[UNK]", "[SEP]", "</s>", "cat", "dog"])}
        engine = Engine(models.WordLevel(words, unk_token="[UNK]"))
        engine.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=engine, unk_token="[UNK]", **special).save_pretrained(tmp_path)
        return tmp_path

    return save


def test_pretrained_ends_documents_with_what_it_has(foreign: Callable[..., Path]) -> None:
    assert Pretrained(path=str(foreign(eos_token="</s>"))).build(_none).eos == 2
    assert Pretrained(path=str(foreign(sep_token="[SEP]"))).build(_none).eos == 1
    folder = str(foreign())
    with pytest.raises(RequestError, match="names no token that ends a document"):
        Pretrained(path=folder).build(_none)
    found = Pretrained(path=folder, eos="</s>").build(_none)
    assert found.eos == 2 and found.vocabulary == 5 and found.encode(["dog cat"]) == [[4, 3]]
    with pytest.raises(RequestError, match=r"did you mean '</s>'"):
        Pretrained(path=folder, eos="<s>").build(_none)


def test_a_saved_end_of_document_is_kept(foreign: Callable[..., Path], tmp_path: Path) -> None:
    found = Pretrained(path=str(foreign()), eos="</s>").build(_none)
    found.save(tmp_path / "saved")
    again = TextTokenizer.load(tmp_path / "saved")
    assert again.eos == 2 and again.hash == found.hash


def test_no_tokenizer_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"No tokenizer can be loaded from .*tokenizer\.json"):
        Pretrained(path=str(tmp_path)).build(_none)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(RequestError, match="No tokenizer can be loaded"):
        Pretrained(path=str(tmp_path)).build(_none)


def test_a_slow_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        pass

    monkeypatch.setattr("foretrain.tokens.tokenizer.AutoTokenizer.from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(RequestError, match="is a Slow, which runs in Python and has no fast form"):
        Pretrained(path=str(tmp_path)).build(_none)


def test_remote_code_runs_only_on_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def load(path: str, trust_remote_code: bool, **settings: bool) -> PreTrainedTokenizerFast:
        asked.append(trust_remote_code)
        return BPE.fast

    monkeypatch.setattr("foretrain.tokens.tokenizer.AutoTokenizer.from_pretrained", load)
    Pretrained(path=str(tmp_path)).build(_none)
    Pretrained(path=str(tmp_path), trust_remote_code=True).build(_none)
    assert asked == [False, True]


def test_byte_letters_are_those_of_the_engine() -> None:
    assert sorted(reserved.byte_letters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert len(reserved.reserved_names()) == len(set(reserved.reserved_names())) == 128
