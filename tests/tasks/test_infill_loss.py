"""Infill: what is asked for, in every form, against plain passes over the model; prompts with modes and prefixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretrain.checks import check_part
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.objectives._spans import prefix_mask
from foretrain.subject import Subject
from foretrain.tasks.completion_loss import CompletionLoss
from foretrain.tasks.infill_loss import InfillLoss
from foretrain.tasks.multiple_choice import MultipleChoice
from foretrain.tokens.reserved import with_named
from tests.tasks.subjects import CONTEXT, byte_tokenizer, model, subject, write_items

TEXTS = [f"{number} is what stands in text number {number}, and it goes on for a while." for number in range(12)]


def _task(folder: Path, **settings: Any) -> InfillLoss:
    items = [{"text": text} for text in TEXTS]
    return InfillLoss.model_validate({"path": write_items(folder / "texts.jsonl", items), **settings})


def _named() -> Subject:
    return Subject(model(), with_named(byte_tokenizer(), ["R", "S", "X"]), CONTEXT)


def _plain(one: Subject, ids: list[int], scored: list[int], prefix: int = 0) -> list[float]:
    """Losses of some places in a row, by the model alone."""
    tokens = torch.tensor([ids])
    mask = prefix_mask(torch.tensor([prefix]), len(ids)) if prefix else None
    with torch.no_grad():
        logs = one.model.eval()(input_ids=tokens, attention_mask=mask).logits[0].log_softmax(-1)
    return [-float(logs[place - 1, ids[place]]) for place in scored]


def _cuts(task: InfillLoss, one: Subject, name: str, length: int) -> list[tuple[list[int], list[bool]]]:
    found = []
    for text in TEXTS:
        ids = one.tokenizer.encode([text])[0]
        start = seed_from(0, "excerpt", text) % (len(ids) - length + 1)
        noise = task.noise[name].draw(length, np.random.default_rng(seed_from(0, "infill", name, text)))
        found.append((ids[start : start + length], noise.tolist()))
    return found


@pytest.mark.parametrize("mode", [None, "R"])
def test_with_sentinels_it_is_the_loss_of_the_spans_after_the_rest(tmp_path: Path, mode: str | None) -> None:
    form = {"sentinels": True, "attention": "prefix", "mode": mode}
    task, one = _task(tmp_path, length=24, forms={"f": form}, noise={"n": {"rate": 0.3, "span": 3}}), _named()
    nats = []
    for ids, noise in _cuts(task, one, "n", 24):
        given: list[int] = [] if mode is None else [one.tokenizer.named[mode]]
        asked: list[int] = []
        scored: list[int] = []
        for place, (token, cut) in enumerate(zip(ids, noise, strict=True)):
            if cut and not noise[place - 1]:
                given.append(127 - sum(token > 100 and token < 128 for token in given))
                asked.append(given[-1])
            if cut:
                scored.append(len(asked))
            (asked if cut else given).append(token)
        given.append(0)
        nats += _plain(one, given + asked, [len(given) + place for place in scored], len(given))
    found = task.evaluate(one, 0)
    assert found["n/f"].value == found["n/loss"].value == pytest.approx(float(np.mean(nats)), rel=1e-5)


@pytest.mark.parametrize("attention", ["causal", "prefix"])
def test_without_it_is_the_loss_of_the_same_tokens_in_the_text(tmp_path: Path, attention: str) -> None:
    task = _task(tmp_path, length=24, forms={"f": {"attention": attention}}, noise={"n": {"rate": 0.3, "span": 3}})
    one, nats = _named(), []
    for ids, noise in _cuts(task, one, "n", 24):
        prefix = noise.index(True) if attention == "prefix" else 0
        nats += _plain(one, ids, [place for place, cut in enumerate(noise) if cut], prefix)
    assert task.evaluate(one, 0)["n/loss"].value == pytest.approx(float(np.mean(nats)), rel=1e-5)


def test_the_best_form_counts_and_forms_without_their_token_are_not_asked(tmp_path: Path) -> None:
    task = _task(tmp_path)
    found = task.evaluate(_named(), 0)
    for name in ("short", "long", "end"):
        forms = {key: one.value for key, one in found.items() if key.startswith(f"{name}/") and key != f"{name}/loss"}
        assert len(forms) == 7 and found[f"{name}/loss"].value == min(forms.values())
        assert found[f"{name}/loss"].items == len(TEXTS)
    assert found["loss"].value == pytest.approx(np.mean([found[f"{n}/loss"].value for n in ("short", "long", "end")]))
    assert found["short/text"].value != found["short/prefix"].value != found["short/S"].value
    unnamed = task.evaluate(subject(), 0)
    assert {key for key in found if key not in unnamed} == {f"{n}/{m}" for n in task.noise for m in "RSX"}
    with pytest.raises(RequestError, match="none of the forms"):
        _task(tmp_path, forms={"S": {"mode": "S"}}).evaluate(subject(), 0)
    with pytest.raises(RequestError, match="no text"):
        _task(tmp_path).evaluate(subject(context=400), 0)


def test_every_form_fits_the_context(tmp_path: Path) -> None:
    for context in (16, 31, 48):
        one = Subject(model(context=context), with_named(byte_tokenizer(), ["R", "S", "X"]), context)
        assert len(_task(tmp_path).evaluate(one, 0)) == 25


def test_prompts_have_a_mode_a_text_before_them_and_are_read_as_prefixes(tmp_path: Path) -> None:
    items = [{"prompt": "ab cd", "text": "efg", "choices": ["efg", "hi"], "answer": 0}] * 2
    path, one = write_items(tmp_path / "items.jsonl", items), _named()
    settings: dict[str, Any] = {
        "path": path,
        "prompt": "prompt",
        "mode": "S",
        "attention": "prefix",
        "before": "U: x\n\n",
    }
    found = CompletionLoss.model_validate({**settings, "completion": "text"}).evaluate(one, 0)
    before = [one.tokenizer.named["S"], *one.tokenizer.encode(["U: x\n\nab cd"])[0]]
    after = one.tokenizer.encode([" efg"])[0]
    places = [len(before) + number for number in range(4)]
    nats = _plain(one, before + after, places, len(before))
    assert found["loss"].value == pytest.approx(np.mean(nats), rel=1e-5) and not found["loss"].truncated
    assert found["loss"].value != pytest.approx(np.mean(_plain(one, before + after, places)), rel=1e-3)
    other = _plain(one, before + one.tokenizer.encode([" hi"])[0], places[:3], len(before))
    choices = MultipleChoice.model_validate(settings).evaluate(one, 0)
    assert choices["choice_loss"].value == pytest.approx(np.logaddexp(0, sum(nats) - sum(other)), rel=1e-4)
    # A prompt that is too long loses its beginning, but not its mode.
    long = {**settings, "completion": "text", "before": "z" * CONTEXT}
    cut = CompletionLoss.model_validate(long).evaluate(one, 0)["loss"]
    kept = [before[0], *one.tokenizer.encode(["z" * CONTEXT + "ab cd efg"])[0][-CONTEXT:]]
    assert cut.truncated == 2
    assert cut.value == pytest.approx(np.mean(_plain(one, kept, list(range(CONTEXT - 3, CONTEXT + 1)), CONTEXT - 3)))
    with pytest.raises(RequestError, match="special token 'T'"):
        CompletionLoss.model_validate({**settings, "mode": "T", "completion": "text"}).evaluate(one, 0)
    # What is not used leaves the hash of a recipe as it was.
    assert {"mode", "before", "attention"}.isdisjoint(CompletionLoss(path=path).model_dump())


def test_it_keeps_the_promises_of_a_task(tmp_path: Path) -> None:
    check_part(_task(tmp_path, length=16))
