"""Fine-tuning: read both ways, mean-pooled, the rate chosen on items that neither teach nor judge."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

import foretrain as ft
from foretrain import api, views
from foretrain.errors import RequestError
from foretrain.models.attention import attention_mask
from foretrain.recipe import make_recipe
from foretrain.tasks._finetuning import Classifier, Example, Sides, Tuned, Tuning, _batches, _factor, best, fine_tune
from foretrain.tasks._finetuning_task import measured
from foretrain.tasks.finetune import Finetune
from foretrain.tasks.finetune_tokens import FinetuneTokens
from tests.tasks.subjects import subject, write_items
from tests.tiny import tiny_data

FAST: dict[str, Any] = {"rates": [1e-3, 1e-2], "seeds": 1, "steps": 30, "epochs": 20, "batch": 8}


def items(count: int = 80) -> list[dict[str, Any]]:
    """The label is whether three letters, which stand anywhere, are a Z."""
    random = np.random.default_rng(0)
    made = []
    for i in range(count):
        letters = list(random.choice(list("abcdefgh"), 9))
        if i % 2:
            for place in random.choice(9, 3, replace=False):
                letters[place] = "Z"
        made.append({"text": "".join(letters) + f" {i}", "label": ["plain", "marked"][i % 2]})
    return made


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_any_model_is_read_both_ways_and_pooled_over_its_own_tokens(kind: str) -> None:
    one = subject(kind)
    classifier = Classifier(one.model, 3, 0).eval()
    texts = [[130, 131, 132, 133, 134], [200, 201]]
    found = classifier([Example(ids, (0,)) for ids in texts])
    for ids, logits in zip(texts, found, strict=True):
        mask = attention_mask("bidirectional", len(ids))
        with torch.no_grad():
            body = copy.deepcopy(one.model).eval().base_model
            states = body(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]
        expected = states.mean(0) @ classifier.layer.weight.T + classifier.layer.bias
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    other_end = [*texts[0][:-1], 300]
    for place in (0, 2):  # a token is seen from those before it
        example, other = (Example(row, (0,), (place,)) for row in (texts[0], other_end))
        assert not torch.allclose(classifier([example]), classifier([other]), atol=1e-4)


def test_training_is_adamw_with_clipping_and_a_linear_warm_up() -> None:
    """Against a plain loop over the same batches."""
    one = subject("llama")
    random = np.random.default_rng(0)
    examples = [Example(random.integers(128, 384, 6).tolist(), (i % 3,)) for i in range(20)]
    tuning = Tuning(rates=[3e-3], seeds=1, steps=5, epochs=9, batch=8, warmup=0.4, choose=0.5)
    tuned = fine_tune(one, Sides(examples, examples[:4], examples[4:9]), 3, tuning)[0]

    classifier = Classifier(one.model, 3, 0).train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.0)
    for rate, batch in zip((1 / 3, 2 / 3, 1, 2 / 3, 1 / 3), _batches(examples, 8, 0), strict=False):
        optimizer.param_groups[0]["lr"] = 3e-3 * rate
        optimizer.zero_grad()
        labels = torch.tensor([example.labels[0] for example in batch])
        functional.cross_entropy(classifier(batch), labels).backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
    classifier.eval()
    with torch.no_grad():
        logits = classifier(examples[4:9])
    labels = torch.tensor([example.labels[0] for example in examples[4:9]])
    losses = functional.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(tuned.losses, losses.numpy(), atol=1e-5)
    assert [_factor(step, 5, 0.4) for step in range(5)] == [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]


def test_an_epoch_sees_each_example_once() -> None:
    examples = [Example([number], (0,)) for number in range(10)]
    batches = _batches(examples, 4, 1)
    seen = [example.ids[0] for _ in range(5) for example in next(batches)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]


def test_the_rate_is_chosen_on_items_that_do_not_judge() -> None:
    right = np.array([1.0, 0.0])
    tuned = [Tuned(rate, chosen, accuracy, right, right) for rate, chosen, accuracy in ((1, 0.5, 0.9), (2, 0.6, 0.1))]
    assert best(tuned).rate == 2
    assert best([*tuned, Tuned(0.5, 0.6, 0.3, right, right)]).rate == 0.5
    found = measured(tuned)
    assert found["spread"].value == pytest.approx(0.8) and found["accuracy"].value == 0.5


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_label_that_only_training_finds_is_learned(tmp_path: Path, kind: str) -> None:
    one = subject(kind)
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    task = Finetune(path=write_items(tmp_path / "items.jsonl", items(110)), **{**FAST, "steps": 40})
    found = task.evaluate(one, 0)
    assert found["accuracy"].value > 0.9 and found["accuracy"].items == len(task.items()[1])
    assert all(torch.equal(before[name], tensor) for name, tensor in one.model.state_dict().items())


def test_no_item_both_teaches_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("foretrain.tasks._finetuning_task.fine_tune", lambda subject, sides, *rest: seen.append(sides))
    Finetune(path=write_items(tmp_path / "items.jsonl", items())).grid(subject("llama"))
    parts = (seen[0].train, seen[0].choose, seen[0].judge)
    sides = [{tuple(example.ids) for example in part} for part in parts]
    assert all(sides) and sum(map(len, sides)) == 80 and not (sides[0] & sides[1] or sides[0] & sides[2])


def tagged(count: int = 60) -> list[dict[str, Any]]:
    """A word's tag is whether the word after it is the same: only the right neighbour tells."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(count):
        words = random.choice(["ab", "cd", "efg"], 7).tolist()
        tags = ["same" if a == b else "other" for a, b in zip(words, [*words[1:], ""], strict=True)]
        made.append({"tokens": words, "tags": tags})
    return made


def test_words_are_judged_at_their_first_token(tmp_path: Path) -> None:
    task = FinetuneTokens(path=write_items(tmp_path / "items.jsonl", tagged()), **FAST)
    one = subject("llama")
    sentence = task.items()[0][0]
    example = task.examples(one, [sentence], ["other", "same"])[0]
    text = one.tokenizer.decode(example.ids)
    assert text == sentence.text
    assert example.places is not None
    for word, place, label, name in zip(sentence.words, example.places, example.labels, sentence.labels, strict=True):
        assert one.tokenizer.decode(example.ids[place:]).lstrip().startswith(word)
        assert ["other", "same"][label] == name


def test_sentences_may_stand_within_items_and_lists_must_fit(tmp_path: Path) -> None:
    whole = write_items(tmp_path / "nested.jsonl", [{"sents": tagged(20)}, {"sents": tagged(30)[20:]}])
    task = FinetuneTokens(path=whole, sentences="sents", limit=25, test=0.4)
    assert sum(map(len, task.items())) == 25
    broken = write_items(tmp_path / "broken.jsonl", [{"tokens": ["a", "b"], "tags": ["x"]}])
    with pytest.raises(RequestError, match="one label for each word"):
        FinetuneTokens(path=broken).check()
    for kind, few in ((Finetune, items(6)), (FinetuneTokens, tagged(6))):
        with pytest.raises(RequestError, match="too few to keep a share of"):
            kind(path=write_items(tmp_path / f"{kind.__name__}.jsonl", few), choose=0.01).check()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = {"kind": "eurobert", "layers": 1, "width": 32, "heads": 2, "context": 32}
    data = tiny_data(model=model, objective="masked_lm", budget={"steps": 2})
    return ft.run(make_recipe(data), out=tmp_path_factory.mktemp("run") / "run", quiet=True)


def test_the_command_says_the_grid_and_what_was_chosen(run: Any, tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", items())
    file = tmp_path / "tasks.yaml"
    file.write_text(yaml.safe_dump({"tasks": {"capitals": {"kind": "finetune", "path": path, **FAST, "steps": 3}}}))
    found = api.finetune(run, file)
    assert api.finetune(run.model_path, file) == found  # a run, or the folder of a model
    row = found["capitals"]
    assert [each["rate"] for each in row["grid"]] == FAST["rates"] and row["rate"] in FAST["rates"]
    assert json.dumps(found) and len(views.finetuned(found)) == 4


def test_faults_of_the_request_are_named(run: Any, tmp_path: Path) -> None:
    path = write_items(tmp_path / "items.jsonl", items())
    file = tmp_path / "tasks.yaml"
    file.write_text(yaml.safe_dump({"tasks": {"probe": {"kind": "knn", "path": path}}}))
    with pytest.raises(RequestError, match=r"tasks.probe: .*fine-tunes.*'knn'.*finetune"):
        api.finetune(run, file)
    file.write_text(yaml.safe_dump({"tasks": {"probe": {"kind": "finetune", "path": path, "rate": [1]}}}))
    with pytest.raises(RequestError, match="'rates'"):
        api.finetune(run, file)
    file.write_text(yaml.safe_dump({"tasks": {"probe": {"kind": "finetune", "path": path}}}))
    with pytest.raises(RequestError, match="neither a run directory"):
        api.finetune(tmp_path, tmp_path / "tasks.yaml")
