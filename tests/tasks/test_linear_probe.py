from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from foretrain.errors import RequestError
from foretrain.tasks.linear_probe import LinearProbe, fit, pooled
from tests.tasks.subjects import subject, write_items


def items(count: int = 60) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    letters = {"low": "abcd", "high": "wxyz", "digit": "0123"}
    made = []
    for i in range(count):
        label = ["low", "high", "digit"][i % 3]
        made.append({"text": "".join(random.choice(list(letters[label]), 10)) + f" {i}", "label": label})
    return made


def newton(features: np.ndarray, labels: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """Logistic regression of two classes by Newton's method; one column of weights decides."""
    design = np.hstack([features, np.ones((len(features), 1))])
    penalty = np.diag([l2] * features.shape[1] + [0.0])
    weights = np.zeros(design.shape[1])
    for _ in range(50):
        share = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (share - labels) + penalty @ weights
        weights -= np.linalg.solve(design.T * (share * (1 - share)) @ design + penalty, slope)
    return weights[:-1], float(weights[-1])


def test_fit_equals_newtons_method() -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((80, 6))
    labels = (features @ random.standard_normal(6) + random.standard_normal(80) > 0.5).astype(int)
    weights, bias = fit(features, labels.tolist(), 2, 3.0)
    # Two columns share what one would do alone: w1 = -w0 = w / 2, so their penalty is that of w with half the strength.
    expected, shift = newton(features, labels, 1.5)
    np.testing.assert_allclose(weights[:, 1] - weights[:, 0], expected, atol=1e-4)
    assert bias[1] - bias[0] == pytest.approx(shift, abs=1e-4)


def test_fit_of_several_classes_is_a_minimum() -> None:
    random = np.random.default_rng(1)
    features = random.standard_normal((50, 4))
    labels = random.integers(0, 3, 50)
    weights, bias = fit(features, labels.tolist(), 3, 0.5)
    w, b = (torch.tensor(x, requires_grad=True) for x in (weights, bias))
    scores = torch.tensor(features) @ w + b
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(labels), reduction="sum") + 0.25 * w.square().sum()
    loss.backward()
    assert w.grad is not None and b.grad is not None
    assert float(w.grad.abs().max()) < 1e-3 and float(b.grad.abs().max()) < 1e-3


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("pool", ["mean", "last"])
def test_features_equal_the_model_text_by_text(kind: str, pool: Literal["mean", "last"]) -> None:
    texts = ["a", "some text", "x" * 70, ""]
    for batch_tokens in (1, 8192):
        one = subject(kind, batch_tokens=batch_tokens)
        found, cut = pooled(one, texts, pool)
        assert cut == [False, False, True, False]
        for text, vector in zip(texts, found, strict=True):
            ids = (one.tokenizer.encode([text])[0] or [one.tokenizer.bos])[: one.context]
            with torch.no_grad():
                states = one.model.eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].double()
            expected = states.mean(0) if pool == "mean" else states[-1]
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_separable_labels_are_found_and_shuffled_ones_are_not(tmp_path: Path, kind: str) -> None:
    one = subject(kind)
    path = write_items(tmp_path / "a.jsonl", items())
    found = LinearProbe(path=path).evaluate(one, 0)
    assert found["accuracy"].value > 0.9 and found["loss"].value < 0.5
    assert found == LinearProbe(path=path).evaluate(one, 1)
    labels = np.random.default_rng(1).permutation([item["label"] for item in items()])
    shuffled = [{**item, "label": str(label)} for item, label in zip(items(), labels, strict=True)]
    found = LinearProbe(path=write_items(tmp_path / "b.jsonl", shuffled)).evaluate(one, 0)
    assert found["accuracy"].value < 0.7


def test_the_classifier_never_learns_from_what_judges(tmp_path: Path) -> None:
    path = write_items(tmp_path / "a.jsonl", items() + items()[:10])
    task = LinearProbe(path=path, test=0.3)
    train, test = task.items()
    assert len(train) + len(test) == 70 and 8 < len(test) < 35
    assert not {item.given for item in train} & {item.given for item in test}
    assert list(task.texts()) == [item.given for item in test]
    held = write_items(tmp_path / "b.jsonl", items()[:5])
    with pytest.raises(RequestError, match="share 5 texts"):
        LinearProbe(path=path, test=held).check()


def test_a_test_path_and_labels_that_were_never_seen(tmp_path: Path) -> None:
    path = write_items(tmp_path / "a.jsonl", items(30))
    fresh = [{**item, "text": "new " + item["text"]} for item in items(9)]
    fresh[0]["label"] = "unheard"
    test = write_items(tmp_path / "b.jsonl", fresh)
    found = LinearProbe(path=path, test=test).evaluate(subject(), 0)
    assert found["accuracy"].items == 9 and found["accuracy"].values[0] == 0 and "loss" not in found


def test_settings_of_a_built_in_corpus(tmp_path: Path) -> None:
    options = {"states": 3, "symbols": 4, "count": 60}
    task = LinearProbe(path="builtin:hidden_markov", options=options, text="prefix", label="state")
    train, test = task.items()
    assert len(train) + len(test) == 60 and {item.right for item in train + test} <= {"s0", "s1", "s2"}
    assert task.model_dump()["options"] == options
    plain = LinearProbe(path=write_items(tmp_path / "a.jsonl", items())).model_dump()
    assert "options" not in plain, "hashes of tasks without any stay what they were"


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="all items have the label 'low'"):
        path = write_items(tmp_path / "a.jsonl", [{**item, "label": "low"} for item in items()])
        LinearProbe(path=path).check()
    with pytest.raises(RequestError, match="no field 'class'"):
        LinearProbe(path=path, label="class").check()
    with pytest.raises(RequestError, match="too few"):
        LinearProbe(path=write_items(tmp_path / "b.jsonl", items(1))).check()
    with pytest.raises(ValidationError, match="share above 0"):
        LinearProbe.model_validate({"kind": "linear_probe", "path": path, "test": 1.5})
