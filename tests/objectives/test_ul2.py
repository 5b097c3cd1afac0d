"""Denoising: the arithmetic and the rows of span corruption against loops of their own, and what a model reads."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain.checks import check_part
from foretrain.errors import RequestError
from foretrain.objectives._spans import Denoiser, Noise, _pieces, prefix_mask, with_sentinels
from foretrain.objectives.prefix_lm import PrefixLM
from foretrain.objectives.span_corruption import SpanCorruption
from foretrain.objectives.ul2 import UL2
from tests.tiny import tiny_plan, tiny_recipe, tiny_trainer

MODEL = {"kind": "llama", "layers": 2, "width": 32, "heads": 2, "feedforward": 64, "context": 64}
SENTINELS = np.arange(1000, 900, -1)
END = 1


def _loop(tokens: list[int], noise: list[bool]) -> tuple[list[int], list[int]]:
    """Span corruption as T5 describes it, one token at a time."""
    inputs: list[int] = []
    targets: list[int] = []
    spans = 0
    for place, (token, cut) in enumerate(zip(tokens, noise, strict=True)):
        if cut and not (place and noise[place - 1]):
            inputs.append(1000 - spans)
            targets.append(1000 - spans)
            spans += 1
        (targets if cut else inputs).append(token)
    return [*inputs, END], [*targets, END]


NOISES = st.builds(Noise, rate=st.floats(0.05, 0.9), span=st.floats(1, 40))


@given(NOISES, st.integers(2, 80), st.integers(0, 99))
def test_a_text_is_cut_as_t5_cuts_it(noise: Noise, length: int, seed: int) -> None:
    cut = noise.draw(length, np.random.default_rng(seed))
    expected = min(max(round(length * noise.rate), 1), length - 1)
    assert noise.span is not None
    spans = min(max(1, round(expected / noise.span)), expected, length - expected)
    assert int(cut.sum()) == expected and not cut[0] and cut[-1]
    assert sum(bool(b) and not a for a, b in zip([False, *cut], cut, strict=False)) == spans
    tokens = np.arange(5000, 5000 + length)
    found = noise.example(tokens, cut, SENTINELS, END)
    assert (found.inputs.tolist(), found.targets.tolist()) == _loop(tokens.tolist(), cut.tolist())
    # The lengths of the formula, from which the length of the text is planned.
    assert len(found.inputs) == length - expected + spans + 1 and len(found.targets) == expected + spans + 1
    assert noise.size(length) == len(found.inputs) + len(found.targets)


@given(st.lists(st.booleans(), min_size=2, max_size=40).filter(any))
def test_every_token_comes_back_in_its_place(noise: list[bool]) -> None:
    """Of any noise that leaves the first token: each sentinel of the inputs, replaced by its span, gives the text."""
    noise[0] = False
    if not any(noise):
        return
    tokens = np.arange(len(noise))
    found = with_sentinels(tokens, np.array(noise), SENTINELS, 2000)
    spans: dict[int, list[int]] = {}
    for token in found.targets[:-1].tolist():
        if token > 900:
            assert token not in spans
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    assert list(spans) == [1000 - number for number in range(len(spans))] and all(spans.values())
    back = [each for token in found.inputs[:-1].tolist() for each in spans.get(token, [token])]
    assert back == tokens.tolist()
    assert all(tokens[p] == t for p, t in zip(found.places, found.targets, strict=True) if p >= 0)
    assert [p for p in found.places.tolist() if p >= 0] == np.flatnonzero(noise).tolist()


def test_all_ways_to_cut_are_equally_likely() -> None:
    random = np.random.default_rng(0)
    found = Counter(tuple(_pieces(5, 3, random).tolist()) for _ in range(6000))
    assert set(found) == {(a, b, 5 - a - b) for a in range(1, 4) for b in range(1, 5 - a)}
    assert max(found.values()) < 1.15 * min(found.values())
    assert _pieces(4, 1, random).tolist() == [4] and _pieces(4, 4, random).tolist() == [1] * 4


def test_the_end_is_a_quarter_on_average_and_never_all() -> None:
    noise, random = Noise(rate=0.25), np.random.default_rng(0)
    cuts = [noise.draw(101, random) for _ in range(2000)]
    sizes = [int(cut.sum()) for cut in cuts]
    assert all(cut[-size:].all() for cut, size in zip(cuts, sizes, strict=True))
    assert (min(sizes), max(sizes)) == (1, 51) and np.mean(sizes) == pytest.approx(26, abs=1)
    found = noise.example(np.arange(8), np.arange(8) >= 6, SENTINELS, END)
    assert found.inputs.tolist() == [0, 1, 2, 3, 4, 5] and found.targets.tolist() == [6, 7]
    assert all(Noise(rate=0.5).draw(2, random).tolist() == [False, True] for _ in range(20))


@given(st.one_of(NOISES, st.builds(Noise, rate=st.floats(0.05, 0.5))), st.integers(0, 300))
def test_a_text_is_as_long_as_its_row_has_room_for(noise: Noise, room: int) -> None:
    length = noise.raw_length(room)
    fitting = [each for each in range(2, room + 1) if noise.size(each) <= room]
    assert length == max(fitting, default=0)


def test_prefixes_are_read_in_both_directions() -> None:
    found = prefix_mask(torch.tensor([3, 0, 5]), 5)
    for row, prefix in enumerate((3, 0, 5)):
        for reader in range(5):
            for read in range(5):
                assert bool(found[row, 0, reader, read]) == (read <= reader or (read < prefix))
    assert found.shape == (3, 1, 5, 5)


def _rows(objective: dict[str, Any]) -> tuple[Any, Any, Any]:
    trainer = tiny_trainer(objective=objective, model=MODEL, batch={"tokens": 32 * 64})
    raw = trainer.stream.batch()
    return trainer, raw, trainer.objective.prepare(raw)


@pytest.mark.parametrize("modes", [True, False])
def test_rows_are_mode_inputs_targets_and_the_loss_is_of_targets(modes: bool) -> None:
    trainer, raw, batch = _rows({"kind": "ul2", "modes": modes})
    named = trainer.context.tokenizer.named
    assert named == ({"R": 3, "X": 4, "S": 5} if modes else {})
    names = list(trainer.objective.denoisers)
    assert len(set(batch["denoiser"].tolist())) > 4
    for row in range(batch.rows):
        denoiser: Denoiser = trainer.objective.denoisers[names[int(batch["denoiser"][row])]]
        whole = [*batch["inputs"][row].tolist(), int(batch["labels"][row, -1])]
        assert batch["labels"][row].tolist() == whole[1:]
        before, length = int(batch["prefix"][row]), int(batch["raw"][row])
        size = denoiser.size(length) + modes
        assert batch["mask"][row].tolist() == [before <= place + 1 < size for place in range(64)]
        # As long as it can be: one more token of text would not fit.
        assert size <= 65 < denoiser.size(length + 1) + modes and not any(whole[size:])
        given, asked = whole[modes:before], whole[before:size]
        if modes:
            assert whole[0] == named[str(denoiser.mode)]
        text = raw["tokens"][row, :length].tolist()
        if denoiser.suffix:
            assert given + asked == text
            continue
        assert given[-1] == asked[-1] == trainer.context.tokenizer.eos
        spans: dict[int, list[int]] = {}
        for token in asked[:-1]:
            if 100 < token < 128:
                spans[token] = []
            else:
                spans[list(spans)[-1]].append(token)
        assert list(spans) == [127 - number for number in range(len(spans))]
        assert [each for token in given[:-1] for each in spans.get(token, [token])] == text


def test_denoisers_are_drawn_by_their_weights_from_the_place_alone() -> None:
    objective = {"kind": "ul2", "denoisers": {"a": {"rate": 0.2, "span": 3, "weight": 3}, "b": {"rate": 0.2}}}
    trainer = tiny_trainer(objective=objective, model={**MODEL, "context": 16}, batch={"tokens": 16 * 800})
    batch = trainer.objective.prepare(trainer.stream.batch())
    assert float((batch["denoiser"] == 0).float().mean()) == pytest.approx(0.75, abs=0.05)
    half = trainer.objective.prepare(trainer.stream.batch(rank=1, world=2))
    assert torch.equal(half["inputs"], batch["inputs"][400:]) and torch.equal(half["mask"], batch["mask"][400:])


def test_targets_see_all_of_the_inputs_and_nothing_behind_themselves() -> None:
    trainer, _, batch = _rows({"kind": "ul2"})
    model = trainer.learner.model

    def losses(inputs: torch.Tensor) -> torch.Tensor:
        changed = batch.with_(inputs=inputs)
        return trainer.objective.losses(trainer.objective.forward(model, changed), changed).detach()

    before = losses(batch["inputs"])
    assert bool((before[~batch["mask"]] == 0).all())
    row = int(batch["mask"].sum(1).argmax())
    places = batch["mask"][row].nonzero()[:, 0].tolist()
    inputs = batch["inputs"].clone()
    inputs[row, places[-1]] += 1  # a target: only what follows it may change
    after = losses(inputs)
    assert torch.allclose(after[row, places[:-1]], before[row, places[:-1]], atol=1e-5)
    assert not torch.allclose(after[row, places[-1]], before[row, places[-1]], atol=1e-5)
    # The first token of the inputs reads the last one, so the state of every target changes with it.
    hidden = trainer.objective.forward(model, batch).hidden
    inputs = batch["inputs"].clone()
    inputs[row, int(batch["prefix"][row]) - 1] += 1
    other = trainer.objective.forward(model, batch.with_(inputs=inputs)).hidden
    assert not torch.allclose(hidden[row, 0], other[row, 0], atol=1e-6)
    causal, _, rows = _rows({"kind": "ul2", "attention": "causal"})
    hidden = causal.objective.forward(model, rows).hidden
    other = causal.objective.forward(model, rows.with_(inputs=inputs)).hidden
    assert torch.equal(hidden[row, 0], other[row, 0])


def test_a_step_counts_what_it_read_and_what_it_learned_from() -> None:
    trainer, _, batch = _rows({"kind": "ul2"})
    figures = trainer.train_step()
    assert figures["raw_tokens"] == int(batch["raw"].sum()) < 32 * 64
    assert figures["loss_tokens"] == int(batch["mask"].sum())
    each = {name: value for name, value in figures.items() if name.startswith("denoiser/")}
    assert len(each) == 7 and sum(each.values()) == figures["loss_tokens"]
    # The loss is the mean over all target tokens of the batch.
    fresh = tiny_trainer(objective={"kind": "ul2"}, model=MODEL, batch={"tokens": 32 * 64})
    losses = fresh.objective.losses(fresh.objective.forward(fresh.learner.model, batch), batch)
    assert figures["loss"] == pytest.approx(float(losses.detach().sum() / batch["mask"].sum()), rel=1e-5)


def test_validation_leaves_out_what_lies_behind_its_end() -> None:
    trainer, raw, batch = _rows({"kind": "ul2"})
    valid = torch.ones_like(raw["tokens"], dtype=torch.bool)
    valid[:, 20:] = False
    cut = trainer.objective.prepare(raw.with_(valid=valid))
    assert torch.equal(cut["inputs"], batch["inputs"]) and 0 < int(cut["mask"].sum()) < int(batch["mask"].sum())
    for row in range(batch.rows):
        counted = cut["labels"][row][cut["mask"][row]].tolist()
        assert all(token >= 128 or token == 0 for token in counted)
        assert set(counted) <= set(raw["tokens"][row, :20].tolist())
    figures = trainer.validation.measure(trainer.learner, trainer.objective, trainer.group)
    assert figures["validation/prose/loss"] == pytest.approx(6, abs=1)


def test_one_file_objectives_are_the_engine_with_one_denoiser() -> None:
    alone = {"spans": {"rate": 0.15, "span": 3}}
    _, _, mixture = _rows({"kind": "ul2", "denoisers": alone})
    _, _, single = _rows({"kind": "span_corruption"})
    assert torch.equal(mixture["inputs"], single["inputs"]) and torch.equal(mixture["mask"], single["mask"])
    _, raw, prefix = _rows({"kind": "prefix_lm", "rate": 0.25})
    assert raw["tokens"].shape[1] == 65 and torch.equal(prefix["inputs"], raw["tokens"][:, :-1])
    assert int(prefix["prefix"].min()) >= round(0.5 * 64)


def test_what_does_not_fit_is_refused_and_told() -> None:
    with pytest.raises(RequestError, match="reserved ids left"):
        tiny_trainer(
            objective={"kind": "span_corruption", "rate": 0.5, "span": 1},
            model={**MODEL, "context": 512},
            batch={"tokens": 1024},
        )
    with pytest.raises(RequestError, match=r"documents: packed"):
        tiny_trainer(objective={"kind": "ul2"}, documents="separate")
    with pytest.raises(RequestError, match=r"no room .* 'r3'"):
        tiny_plan(objective={"kind": "ul2"}, model={**MODEL, "context": 4}, batch={"tokens": 64})
    for faulty, told in (({"rate": 0.7}, "twice the rate"), ({"rate": 0.1, "weight": 0}, "weight above 0")):
        with pytest.raises(RequestError, match=told):
            tiny_recipe(objective={"kind": "ul2", "denoisers": {"one": faulty}})
    trainer = tiny_trainer(objective={"kind": "ul2"}, model=MODEL)
    assert any("'x64' cuts out 9, so its span is shorter" in text for text in trainer.warnings)


@pytest.mark.parametrize(
    "part", [UL2(), UL2(modes=False, attention="causal"), SpanCorruption(), PrefixLM()], ids=lambda part: part.kind
)
def test_they_keep_the_promises_of_an_objective(part: Any) -> None:
    check_part(part)
