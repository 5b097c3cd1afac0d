from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretrain.errors import RequestError
from foretrain.tasks.lm_eval import LmEval, _manager, _measured
from foretrain.tasks.multiple_choice import MultipleChoice
from tests.tasks.subjects import subject, word_tokenizer, write_items

ROWS = [
    {"question": f"item {i} ab", "choices": ["ab", "abcd zz", "q cd"], "answer": i % 3, "text": f"whole text {i} ab cd"}
    for i in range(12)
]
CHOICE = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITE = """
task: tiny_write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{text}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 5, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
ROLL = """
task: tiny_roll
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: bits_per_byte}}, {{metric: word_perplexity}}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra [eval])")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = write_items(tmp_path / "data.jsonl", ROWS)
    for name, text in (("choice", CHOICE), ("write", WRITE), ("roll", ROLL)):
        (tmp_path / f"{name}.yaml").write_text(text.format(data=data))
    yield tmp_path


def test_multiple_choice_equals_our_own(folder: Path) -> None:
    one = subject(tokenizer=word_tokenizer())
    task = LmEval(task="tiny_choice", include=str(folder))
    found = task.evaluate(one, 0)
    own = MultipleChoice(path=str(folder / "data.jsonl")).evaluate(one, 0)
    assert set(found) == {"acc", "acc_norm"}
    for ours, theirs in (("accuracy", "acc"), ("accuracy_norm", "acc_norm")):
        assert found[theirs] == replace(own[ours], answers=found[theirs].answers)  # lm-eval keeps no answers
    assert next(iter(task.texts())) == "item 0 ab ab"
    assert LmEval(task="tiny_choice", include=str(folder), limit=5).evaluate(one, 0)["acc"].items == 5


def test_several_tasks_and_the_global_generators(folder: Path) -> None:
    one = subject(tokenizer=word_tokenizer())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    found = LmEval(task=["tiny_choice", "tiny_roll"], include=str(folder)).evaluate(one, 0)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert {"tiny_choice/acc", "tiny_roll/bits_per_byte"} <= set(found)


def test_rolling_equals_lm_evals_own_model(folder: Path) -> None:
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    from foretrain.tasks._harness import Harness

    one = subject(tokenizer=word_tokenizer(), context=16)
    peer = huggingface.HFLM(
        pretrained=one.model, tokenizer=one.tokenizer.fast, max_length=16, batch_size=2, device="cpu", backend="causal"
    )
    ours = Harness(one)

    def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        return [Instance(kind, {}, given, i) for i, given in enumerate(arguments)]

    texts = requests("loglikelihood_rolling", [("short ab",), ("a text that is longer than the context by far",)])
    assert ours.loglikelihood_rolling(texts) == pytest.approx(peer.loglikelihood_rolling(texts), abs=1e-3)
    pairs = requests("loglikelihood", [("x: ", "ab"), ("", "abcd"), ("long " * 9, " q cd"), ("ab", " cd")])
    expected = peer.loglikelihood(pairs)
    for mine, other in zip(ours.loglikelihood(pairs), expected, strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-3) and mine[1] == bool(other[1])


def test_generation_settings_reach_the_model(folder: Path) -> None:
    from foretrain.generation import generate
    from foretrain.tasks._harness import _settings

    one = subject()
    written = generate(one, [row["question"] for row in ROWS], tokens=5, stop=["\n"])
    rows = [{**row, "text": text.text} for row, text in zip(ROWS, written, strict=True)]
    write_items(folder / "data.jsonl", [*rows[:-1], {**rows[-1], "text": "something else"}])
    found = LmEval(task="tiny_write", include=str(folder)).evaluate(one, 0)
    assert found["exact_match"].value == pytest.approx(11 / 12)
    assert _settings({"until": "x", "do_sample": True, "top_p": 0.9, "max_new_tokens": 7}) == {
        "stop": ["x"], "temperature": 1.0, "top_k": None, "top_p": 0.9, "tokens": 7,
    }  # fmt: skip
    assert _settings({"do_sample": False, "temperature": 0.7})["temperature"] == 0.0
    with pytest.raises(RequestError, match="num_beams"):
        _settings({"num_beams": 4})


def test_faults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # lm-eval's own definitions take seconds to look through.
    monkeypatch.setattr("foretrain.tasks.lm_eval._manager", lambda include, defaults: _manager(include, False))
    with pytest.raises(RequestError, match="did you mean 'tiny_choice'"):
        LmEval(task="tiny_choise", include=str(folder)).check()
    (folder / "data.jsonl").unlink()
    with pytest.raises(RequestError, match="cannot be loaded"):
        LmEval(task="tiny_choice", include=str(folder)).check()


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(RequestError, match=r"pip install 'foretrain\[eval\]'"):
        LmEval(task="arc_easy").check()


def test_intervals_of_figures() -> None:
    samples = [{"acc": 1.0}, {"acc": 0.0}, {"acc": 1.0}]
    shares = _measured(2 / 3, 0.1, True, "acc", samples)
    assert shares.values == (1.0, 0.0, 1.0) and shares.low != pytest.approx(2 / 3 - 0.196)
    other = _measured(9.0, 0.5, False, "word_perplexity", [{"word_perplexity": (1.0, 2)}])
    assert (other.low, other.high) == pytest.approx((9.0 - 0.98, 9.0 + 0.98)) and not other.higher_is_better
    assert _measured(9.0, "N/A", True, "f", []).low is None
