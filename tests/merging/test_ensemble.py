"""Mean logits against an explicit loop, through everything that reads logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from foretrain.errors import RequestError
from foretrain.exporting import load_run_model
from foretrain.generation import generate
from foretrain.merging.ensemble import Ensemble
from foretrain.merging.evaluating import evaluate_merge
from foretrain.objectives.causal_lm import CausalLM
from foretrain.run_directory import RunDirectory
from foretrain.subject import Subject
from foretrain.tasks.likelihood import Pair, log_likelihoods
from tests.tiny import tiny_plan

IDS = torch.arange(3 * 9).reshape(3, 9) % 200 + 40
MASK = torch.arange(9) < torch.tensor([9, 5, 7])[:, None]


def explicit(members: list[RunDirectory], ids: torch.Tensor) -> torch.Tensor:
    """Mean logits of one row, from the models alone."""
    with torch.no_grad():
        return torch.stack([load_run_model(run)[0](input_ids=ids[None]).logits[0] for run in members]).mean(0)


def test_logits_are_the_mean_row_by_row(runs: list[RunDirectory], wider: RunDirectory) -> None:
    members = [*runs, wider]
    merged = Ensemble().merge(members)
    subject = merged.subject
    assert merged.exported is None and merged.inference == 3 and subject.causal and subject.context == 32
    found = subject.logits(IDS, MASK)
    places = torch.zeros_like(MASK)
    places[0, 3] = places[2, 6] = True
    torch.testing.assert_close(subject.logits(IDS, MASK, places=places), found[places])
    with torch.no_grad():
        packed = merged.model(input_ids=IDS).logits
    for row, length in enumerate((9, 5, 7)):
        mean = explicit(members, IDS[row, :length])
        torch.testing.assert_close(found[row, :length], mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(packed[row, :length], mean, rtol=0, atol=1e-5)
        assert not torch.allclose(mean, explicit(members[:1], IDS[row, :length]), atol=1e-2)


def test_likelihoods_are_normalised_after_the_mean(runs: list[RunDirectory]) -> None:
    pair = Pair(IDS[0, :4].tolist(), IDS[0, 4:].tolist())
    found = log_likelihoods(Ensemble().merge(runs).subject, [pair])[0]
    logits = explicit(runs, IDS[0, :-1])[3:]
    assert found.log == pytest.approx(-float(functional.cross_entropy(logits, IDS[0, 4:], reduction="sum")), abs=1e-4)


def test_validation_losses_are_those_of_a_plain_loop(runs: list[RunDirectory], tmp_path: Path) -> None:
    result = evaluate_merge(Ensemble(), runs, tmp_path / "merged")
    tokens = tiny_plan().sets("validation")["sums"]
    count = min(1024, tokens.tokens)
    text = torch.from_numpy(tokens.read(tokens.tokens - 1, count + 1))  # the first is predicted from the ring's end
    losses = []
    for start in range(0, count, 32):
        window = text[start : start + 33]
        losses += functional.cross_entropy(explicit(runs, window[:-1]), window[1:], reduction="none").tolist()
    assert result["validation"]["sums/loss"] == pytest.approx(sum(losses) / count, abs=1e-5)


def test_copies_of_one_run_are_that_run(runs: list[RunDirectory], tmp_path: Path) -> None:
    single = runs[0].result() or {}
    result = evaluate_merge(Ensemble(), [runs[0]] * 3, tmp_path / "merged")
    assert result["validation"] == pytest.approx(single["validation"], rel=1e-5)
    assert result["tasks"]["sums"]["loss"]["value"] == pytest.approx(single["tasks"]["sums"]["loss"]["value"], rel=1e-5)
    plain = Subject(load_run_model(runs[0])[0], *(lambda s: (s.tokenizer, 32))(Ensemble().merge(runs).subject))
    settings = {"tokens": 12, "temperature": 0.7, "seed": 3}
    texts = [
        [text.text for text in generate(subject, ["1 + 1 =", "The "], **settings)]  # type: ignore[arg-type]
        for subject in (plain, Ensemble().merge([runs[0]] * 2).subject)
    ]
    assert texts[0] == texts[1]


def test_a_cache_gives_what_reading_anew_gives(runs: list[RunDirectory]) -> None:
    subject = Ensemble().merge(runs).subject
    cache = subject.cache()
    assert isinstance(cache, list) and len(cache) == 2
    subject.logits(IDS, MASK, cache)
    after = torch.tensor([[70], [71], [72]])
    found = subject.logits(after, torch.cat([MASK, torch.ones(3, 1, dtype=torch.bool)], 1), cache)
    for row, length in enumerate((9, 5, 7)):
        whole = explicit(runs, torch.cat([IDS[row, :length], after[row]]))
        torch.testing.assert_close(found[row, 0], whole[-1], rtol=0, atol=1e-5)


def test_features_are_those_of_all_members(runs: list[RunDirectory]) -> None:
    subject = Ensemble().merge(runs).subject
    apart = [Ensemble().merge([run]).subject.features(IDS, MASK) for run in runs]
    assert torch.equal(subject.features(IDS, MASK), torch.cat(apart, -1)) and not torch.equal(*apart)


def test_separate_documents_reach_every_member(runs: list[RunDirectory]) -> None:
    """Masks and positions are handed on: a document's losses do not depend on what stands before it."""
    merged, objective = Ensemble().merge(runs), CausalLM()
    stream = tiny_plan(documents="separate").stream()
    while not (stream.batch()["segments"][:, 20] > 0).any():
        stream.advance()
    batch = stream.batch()
    prepared = objective.prepare(batch)
    with torch.no_grad():
        losses = objective.losses(objective.forward(merged.model, prepared), prepared)
        other = batch["tokens"].clone()
        first = batch["segments"] == 0
        row = int((~first[:, 20]).nonzero()[0, 0])
        other[row, first[row]] = 77
        changed = objective.prepare(batch.with_(tokens=other))
        again = objective.losses(objective.forward(merged.model, changed), changed)
    later = ~first[row, 1:]
    torch.testing.assert_close(losses[row, later], again[row, later])
    assert not torch.allclose(losses[row], again[row])


def test_what_cannot_be_an_ensemble_is_said(runs: list[RunDirectory], tmp_path: Path) -> None:
    evaluate_merge(Ensemble(), runs, tmp_path / "merged")
    with pytest.raises(RequestError, match="is an ensemble and has no weights of its own; name its members"):
        Ensemble().merge([runs[0], RunDirectory(tmp_path / "merged")])
