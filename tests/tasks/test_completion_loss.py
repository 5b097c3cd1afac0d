from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from foretrain.tasks.completion_loss import CompletionLoss
from foretrain.tasks.statistics import wilson
from tests.tasks.subjects import subject, word_tokenizer, write_items

ITEMS = [{"q": "ab ab", "a": "cd é ab"}, {"q": "x", "a": "abcd abcd"}, {"q": "cd", "a": "z"}, {"q": "q", "a": "ab"}]


def test_figures_equal_a_loop_over_items(tmp_path: Path) -> None:
    one = subject(tokenizer=word_tokenizer())
    task = CompletionLoss(path=write_items(tmp_path / "a.jsonl", ITEMS), prompt="Q {q} A", completion="a")
    nats, tokens, sizes, hits = [], [], [], 0
    for item in ITEMS:
        prompt = one.tokenizer.encode([f"Q {item['q']} A"])[0]
        whole = torch.tensor([one.tokenizer.encode([f"Q {item['q']} A {item['a']}"])[0]])
        assert whole[0, : len(prompt)].tolist() == prompt
        labels = whole.clone()
        labels[0, : len(prompt)] = -100
        with torch.no_grad():
            made = one.model.eval()(whole, labels=labels)
        loss = float(made.loss)
        hits += int((made.logits[0, :-1].argmax(-1) == labels[0, 1:]).sum())
        tokens.append(whole.shape[1] - len(prompt))
        nats.append(loss * tokens[-1])
        sizes.append(len((" " + item["a"]).encode()))
    found = task.evaluate(one, 0)
    loss, bits = found["loss"], found["bits_per_byte"]
    assert loss.value == pytest.approx(sum(nats) / sum(tokens), abs=1e-5)
    assert bits.value == pytest.approx(sum(nats) / sum(sizes) / math.log(2), abs=1e-5)
    assert loss.weights == tuple(tokens) and bits.weights == tuple(sizes)
    assert loss.values == pytest.approx([n / t for n, t in zip(nats, tokens, strict=True)], abs=1e-5)
    assert found["token_accuracy"].value == pytest.approx(hits / sum(tokens))
    # The interval, from its textbook form for a ratio estimator.
    ratio, count = sum(nats) / sum(tokens), len(ITEMS)
    spread = math.sqrt(sum((n - ratio * t) ** 2 for n, t in zip(nats, tokens, strict=True)) / (count - 1))
    half = stats.t.ppf(0.975, count - 1) * spread / math.sqrt(count) / (sum(tokens) / count)
    assert loss.low == pytest.approx(ratio - half, abs=1e-4) and loss.high == pytest.approx(ratio + half, abs=1e-4)
    assert (loss.items, loss.higher_is_better, loss.truncated) == (4, False, 0)
    assert found["accuracy"].value == 0 and (found["accuracy"].low, found["accuracy"].high) == wilson(0, 4)


def test_where_keeps_some_items_and_no_where_leaves_no_trace(tmp_path: Path) -> None:
    items = [{"text": "ab", "kind": "a"}, {"text": "cd", "kind": "b"}, {"text": "ef", "kind": "a"}]
    path = write_items(tmp_path / "a.jsonl", items)
    task = CompletionLoss(path=path, where={"kind": "a"})
    assert [item.right for item in task.items()] == ["ab", "ef"] and task.model_dump()["where"] == {"kind": "a"}
    assert "where" not in CompletionLoss(path=path).model_dump()  # so results from before there was one keep their hash


def test_whole_documents_without_a_prompt(tmp_path: Path) -> None:
    one = subject()
    path = write_items(tmp_path / "a.jsonl", [{"text": "abc"}, {"text": "wxyz" * 20}])
    found = CompletionLoss(path=path).evaluate(one, 0)
    assert found["loss"].weights == (3.0, 80.0) and found["loss"].truncated == 1
    whole = torch.tensor([[one.tokenizer.bos, *one.tokenizer.encode(["abc"])[0]]])
    with torch.no_grad():
        expected = float(one.model.eval()(whole, labels=whole).loss)
    assert found["loss"].values[0] == pytest.approx(expected, abs=1e-5)


def test_accuracy_is_greedy_decoding(tmp_path: Path) -> None:
    one = subject()
    prompt, letter = one.tokenizer.encode(["say", "z"])
    head = one.model.get_output_embeddings().weight
    with torch.no_grad():  # After "say" the logit of "z" is the square of the state, and all others are 0.
        state = one.features(torch.tensor([prompt]))[0, -1]
        head.zero_()
        head[letter[0]] = state
    path = write_items(tmp_path / "a.jsonl", [{"q": "say", "text": "z"}, {"q": "say", "text": "a"}])
    found = CompletionLoss(path=path, prompt="q", separator="").evaluate(one, 0)
    assert found["accuracy"].values == (1.0, 0.0)


def test_examples_stand_before_every_item(tmp_path: Path) -> None:
    one = subject(context=120)
    path = write_items(tmp_path / "a.jsonl", [{"q": "x", "a": "y"}])
    shown = write_items(tmp_path / "b.jsonl", [{"q": "s", "a": "t"}])
    plain = write_items(tmp_path / "c.jsonl", [{"q": "s t\n\nx", "a": "y"}])
    shots = CompletionLoss(path=path, prompt="q", completion="a", shots=1, shots_path=shown).evaluate(one, 0)
    assert shots == CompletionLoss(path=plain, prompt="q", completion="a").evaluate(one, 0)
    assert shots != CompletionLoss(path=path, prompt="q", completion="a").evaluate(one, 0)
