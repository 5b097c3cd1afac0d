"""Skill-It: the rule against a loop, the graph learned by proxy runs, when it measures, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from foretrain.checks import check_part
from foretrain.checks.trial import finished, trial
from foretrain.errors import RequestError
from foretrain.steering.skill_it import SkillIt, scores
from foretrain.tokens.stream import LAG
from foretrain.trainer import Trainer
from tests.tiny import CONTEXT, tiny_data

CORPUS: dict[str, Any] = {
    "prose": {"path": "builtin:biographies", "options": {"people": 60}, "steer": 0.2},
    "sums": {"path": "builtin:arithmetic", "options": {"count": 60}, "steer": 0.2},
    "lego": {"path": "builtin:lego", "options": {"count": 60}, "steer": 0.2},
}
EDGES = {"prose": {"prose": 0.2, "sums": 0.5}, "sums": {"lego": 1.5}}


def _trainer(steps: int = 0, recipe: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    part = {"kind": "skill_it", "every": 2, "per_round": 2, "window": 2, "proxy_steps": 2, "tokens": 256, **settings}
    trainer = trial({"corpus": CORPUS, "steering": [part], **(recipe or {})})
    for _ in range(steps):
        trainer.counted_step()
    return trainer


def _part(trainer: Trainer) -> SkillIt:
    part = trainer.steering[0]
    assert isinstance(part, SkillIt)
    return part


def _shares(found: dict[str, float]) -> dict[str, float]:
    return {name: value / sum(found.values()) for name, value in found.items()}


# The rule -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_the_rule_is_this_loop(reduce: str) -> None:
    trainer = _trainer(graph=EDGES, eta=0.1, reduce=reduce, window=3, per_round=3)
    matrix = {  # rows are trained on; 1 to oneself unless told, 0 elsewhere
        ("prose", "prose"): 0.2,
        ("prose", "sums"): 0.5,
        ("sums", "lego"): 1.5,
        ("sums", "sums"): 1.0,
        ("lego", "lego"): 1.0,
    }
    rounds: list[dict[str, float]] = []
    exponents = {i: sum(matrix.get((i, j), 0.0) for j in CORPUS) for i in CORPUS}  # the first mixture: softmax over A
    expected, seen = {}, []
    for step in range(14):
        figures = trainer.counted_step()[0]
        if step > 0 and step % 2 == 0:
            rounds.append({j: figures[f"skill_it/loss/{j}"] for j in CORPUS})
        if step > 0 and step % 6 == 0:
            last = rounds[-3:]
            share = 1 / len(last) if reduce == "mean" else 1.0
            exponents = {
                i: sum(matrix.get((i, j), 0.0) * losses[j] * share for losses in last for j in CORPUS) for i in CORPUS
            }
        expected[step + LAG] = _shares({i: math.exp(0.1 * exponents[i]) for i in CORPUS})
        seen.append(dict(trainer.stream.weights))  # those of the next step
        if step + 1 in expected:
            assert seen[-1] == pytest.approx(expected[step + 1], rel=1e-9), step
    assert len({round(one["prose"], 9) for one in seen}) == 4, "the recipe's, the first one's and two rounds'"


def test_it_begins_anew_from_what_comes_in_and_not_from_its_last_mixture() -> None:
    part = SkillIt(graph={"a": {}}, eta=0.5)
    part._scores = {"a": 2.0, "b": 0.0}
    first = part.mix({"a": 0.5, "b": 0.5}, 0)
    assert first == part.mix({"a": 0.5, "b": 0.5}, 1)
    assert first["a"] / first["b"] == pytest.approx(math.exp(1.0))
    tilted = part.mix({"a": 0.2, "b": 0.8}, 2)
    assert tilted["a"] / tilted["b"] == pytest.approx(0.25 * math.exp(1.0))


def test_a_score_is_a_row_of_the_graph_times_the_losses() -> None:
    graph = {"a": {"a": 1.0, "b": 0.5}, "b": {"a": 0.0, "b": 2.0}}
    history = [{"a": 3.0, "b": 1.0}, {"a": 2.0, "b": 0.5}]
    assert scores(graph, history, "sum") == pytest.approx({"a": 5 + 0.75, "b": 3.0})
    assert scores(graph, history, "mean") == pytest.approx({"a": 2.5 + 0.375, "b": 1.5})


def test_large_losses_do_not_overflow_and_a_domain_of_weight_0_stays_out() -> None:
    part = SkillIt(eta=1.0)
    part._scores = {"a": 5000.0, "b": 4000.0, "c": 4999.0}
    assert part.mix({"a": 1.0, "b": 1.0, "c": 1.0}, 0) == {"a": 1.0, "b": 0.0, "c": pytest.approx(math.exp(-1))}
    left = part.mix({"a": 0.0, "b": 1.0, "c": 0.0}, 0)
    assert left == {"a": 0.0, "b": 1.0, "c": 0.0}, "what is drawn at all is the scale"


def test_the_complete_graph_is_stratified_and_the_identity_goes_by_own_losses() -> None:
    complete = _trainer(9, graph="complete", eta=2.0)
    assert complete.stream.weights == pytest.approx(complete.plan.weights, rel=1e-12)
    own = _trainer(10, graph="identity", eta=0.3)
    history = own.steering[0].state_dict()["history"]
    expected = _shares({name: math.exp(0.3 * (history[0][name] + history[1][name])) for name in CORPUS})
    assert own.stream.weights == pytest.approx(expected, rel=1e-9)


# When ---------------------------------------------------------------------------------------------------------------


def test_only_the_last_places_of_a_round_are_measured() -> None:
    part = _part(_trainer(graph="complete", every=3, per_round=4, window=2))
    measured = [step for step in range(40) if part.step_kind(step) == "losses"]
    assert measured == [9, 12, 21, 24, 33, 36]
    assert [step for step in measured if part._ends_round(step)] == [12, 24, 36]
    always = _trainer(graph="complete", every=1, per_round=1, window=3).steering[0]
    assert [always.step_kind(step) for step in range(3)] == ["", "losses", "losses"], "never before the first step"


def test_what_it_costs_is_in_the_steps() -> None:
    trainer = _trainer(6, graph="learn")
    kinds = trainer.meter.per_kind
    assert set(kinds) == {"graph", "losses", ""}
    assert kinds["graph"] > 6 * kinds[""], "two steps on each of three domains, and the losses after each"
    assert kinds["losses"] > kinds[""]
    assert trainer.meter.total == kinds["graph"] + 2 * kinds["losses"] + 3 * kinds[""]


# The graph ----------------------------------------------------------------------------------------------------------


def test_a_learned_graph_is_what_plain_runs_on_one_domain_do() -> None:
    """Each row against an ordinary trainer of that domain alone, on the same windows, at a constant rate."""
    recipe = {"optimizer": {"lr": 1e-2}, "schedule": {"kind": "constant", "warmup": 0}, "stability": {"clip": None}}
    trainer = _trainer(1, recipe, graph="learn", proxy_steps=3, tokens=1024)
    graph = trainer.steering[0].state_dict()["graph"]
    before = trial({"corpus": CORPUS, **recipe}).context.evaluate("steer", 1024)
    for name in CORPUS:
        weights = {other: {**domain, "weight": float(other == name)} for other, domain in CORPUS.items()}
        alone = trial({"corpus": weights, **recipe})
        for _ in range(3):
            alone.train_step()
        after = alone.context.evaluate("steer", 1024)
        for other in CORPUS:
            gain = max(0.0, (before[other] - after[other]) / before[other])
            assert graph[name][other] == pytest.approx(gain, abs=2e-5)
    assert graph["sums"]["sums"] > graph["prose"]["sums"] > 0


def test_learning_the_graph_leaves_no_trace() -> None:
    learned, plain = _trainer(graph="learn", eta=0.0), trial({"corpus": CORPUS})
    for _ in range(5):
        ours, theirs = learned.train_step(), plain.train_step()
        assert {name: ours[name] for name in theirs} == theirs
    for name, weight in learned.learner.masters.items():
        assert torch.equal(weight, plain.learner.masters[name])


def test_the_graph_of_another_run_is_used_again(tmp_path: Path) -> None:
    part = {"kind": "skill_it", "proxy_steps": 2, "tokens": 256}
    other = finished({"corpus": CORPUS, "steering": [part], "checkpoint": {"every": 6}}, tmp_path / "other")
    graph = {i: {j: other.series(f"skill_it/graph/{i}/{j}").last for j in CORPUS} for i in CORPUS}
    smaller = {name: CORPUS[name] for name in ("prose", "lego")}
    for path in (other.path, other.model_path):
        trainer = _trainer(1, {"corpus": smaller}, run=str(path))
        assert trainer.kind(0) == "", "it was paid for there"
        found = trainer.steering[0].state_dict()["graph"]
        assert found == {i: {j: graph[i][j] for j in smaller} for i in smaller}
    with pytest.raises(RequestError, match="has no figure skill_it/graph/prose/other"):
        _trainer(1, {"corpus": {**smaller, "other": CORPUS["sums"], "sums": CORPUS["sums"]}}, run=str(other.path))
    (other.path / "result.json").write_text(json.dumps({"status": "failed"}))
    with pytest.raises(RequestError, match="is failed, and its graph is known at its end"):
        _trainer(1, run=str(other.path))


def test_what_is_evaluated_may_be_a_domain_that_is_never_drawn() -> None:
    corpus = {**CORPUS, "lego": {**CORPUS["lego"], "weight": 0, "steer": 0.3, "validation": 0.3}}
    trainer = _trainer(6, {"corpus": corpus}, graph=[[1, 0.5], [2, 0]], evaluated=["lego", "sums"], eta=0.4)
    state = trainer.steering[0].state_dict()
    assert state["graph"] == {"prose": {"lego": 1, "sums": 0.5}, "sums": {"lego": 2, "sums": 0}}
    assert set(state["history"][0]) == {"lego", "sums"}
    sums = {name: sum(losses[name] for losses in state["history"]) for name in ("lego", "sums")}
    drawn = {"prose": sums["lego"] + 0.5 * sums["sums"], "sums": 2 * sums["lego"]}
    expected = _shares({name: math.exp(0.4 * score) for name, score in drawn.items()})
    assert trainer.stream.weights == pytest.approx({**expected, "lego": 0.0}, rel=1e-9)


def test_with_stages_skills_are_the_domains_of_any_stage() -> None:
    stages = {"first": {"weights": {"prose": 1}}, "then": {"weights": {"sums": 1, "prose": 1}}}
    trainer = _trainer(6, {"stages": stages}, graph="identity")
    assert _part(trainer)._trained == ("prose", "sums")
    assert trainer.stream.weights["lego"] == 0 < trainer.stream.weights["prose"] < 1


# The promises -------------------------------------------------------------------------------------------------------


def test_resuming_is_exact_while_rounds_go_on() -> None:
    part = SkillIt(every=1, per_round=2, window=2, proxy_steps=1, tokens=256, eta=1.0)
    check_part(part, {"corpus": CORPUS})


def test_micro_batches_change_nothing() -> None:
    whole = _trainer(1, graph="learn").steering[0].state_dict()["graph"]
    batch = {"tokens": 8 * CONTEXT, "micro": 3 * CONTEXT}
    pieces = _trainer(1, {"batch": batch}, graph="learn").steering[0].state_dict()["graph"]
    for name, others in whole.items():
        assert pieces[name] == pytest.approx(others, abs=1e-5)


def test_wrong_settings_are_refused_in_words() -> None:
    def refused(said: str, corpus: dict[str, Any] | None = None, **settings: Any) -> None:
        part = {"kind": "skill_it", **settings}
        with pytest.raises(RequestError, match=said):
            trial({**tiny_data(), "corpus": corpus or CORPUS, "steering": [part]})

    refused(r"the matrix is 2 x 3, and should be 3 x 3: a row for each .* \(prose, sums, lego\)", graph=[[1, 0, 0]] * 2)
    refused("the matrix is 3 x 2 or 3, and should be 3 x 3", graph=[[1, 0, 0], [1, 0], [1, 0, 0]])
    refused("graph: there is no domain that is trained on 'pros'; did you mean 'prose'", graph={"pros": {"sums": 1}})
    refused(r"graph: there is no domain that is evaluated .* 'sum'; did you mean 'sums'", graph={"prose": {"sum": 1}})
    refused("should be greater than or equal to 0", graph={"prose": {"sums": -1}})
    refused("evaluated: there is no domain 'leg'; did you mean 'lego'", evaluated=["leg"])
    refused("`run` is where a learned graph is read from", graph="identity", run="somewhere")
    plain = copy.deepcopy(CORPUS)
    plain["sums"]["steer"] = 0
    refused(r"domain 'sums' has no steer split .* corpus.sums.steer: 0.05", corpus=plain)
