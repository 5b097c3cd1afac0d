"""Injection: who stands where, what the objective sees of it, and that nothing else changes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from foretrain.batch import Batch
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.objectives.causal_lm import CausalLM
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.steering.injection import Injection, Insertion, lay_out, ledger
from foretrain.trainer import Trainer
from tests.tasks.subjects import byte_tokenizer
from tests.tiny import CONTEXT, tiny_data, tiny_plan, tiny_trainer

STEPS, ROWS, WINDOW = 40, 8, CONTEXT + 1


def documents(folder: Path, name: str, texts: list[str]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"id": f"{name}{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return str(path)


@pytest.fixture
def two(tmp_path: Path) -> dict[str, Any]:
    """Short documents, some repeats, and a window of their own for one of them."""
    return {
        "short": {"path": documents(tmp_path, "s", ["one!", "two!!", "three!!!"]), "repeats": 20},
        "late": {"path": documents(tmp_path, "l", ["late.", "later."]), "repeats": 12, "start": 0.5, "end": 0.75},
    }


def trainer(interventions: dict[str, Any], active: list[str] | None = None, **changes: Any) -> Trainer:
    steering = [{"kind": "injection", "interventions": interventions, "active": active}]
    return tiny_trainer(STEPS, budget={"steps": STEPS}, steering=steering, **changes)


def seen(one: Trainer) -> list[Batch]:
    """Every batch of the run, as the objective gets it."""
    batches = []
    for _ in range(STEPS):
        batches.append(one.steering[0].replace(one.stream.batch()))
        one.stream.advance()
    return batches


def test_positions_are_disjoint_in_their_part_of_the_run_and_repeats_exact(two: dict[str, Any]) -> None:
    found = ledger(trainer(two).plan)
    assert len({entry.position for entry in found}) == len(found) == 3 * 20 + 2 * 12
    assert [entry.position for entry in found] == sorted(entry.position for entry in found)
    counts = Counter((entry.intervention, entry.document) for entry in found)
    assert counts == {("short", f"s{i}"): 20 for i in range(3)} | {("late", f"l{i}"): 12 for i in range(2)}
    repeats = defaultdict(list)
    for entry in found:
        assert (entry.step, entry.row) == divmod(entry.position, ROWS)
        assert 0 <= entry.offset <= WINDOW - entry.tokens
        repeats[entry.document].append(entry.repeat)
    assert all(numbers == sorted(range(len(numbers))) for numbers in repeats.values())
    assert all(20 <= entry.step < 30 for entry in found if entry.intervention == "late")


def places(interventions: dict[str, Any], seed: int, steps: int = 400) -> list[Insertion]:
    part = Injection.model_validate({"interventions": interventions})
    layout, _ = lay_out(
        part.interventions, byte_tokenizer(), steps=steps, rows=ROWS, window=WINDOW, stride=CONTEXT, seed=seed
    )
    return [layout[place][0] for place in sorted(layout)]


def test_they_are_uniform_over_run_and_window(two: dict[str, Any]) -> None:
    steps: list[float] = []
    rows, offsets = Counter[int](), Counter[int]()
    for seed in range(40):
        for entry in places(two, seed):
            if entry.document == "s0":
                steps.append(entry.position / (400 * ROWS))
                offsets[entry.offset] += 1
            rows[entry.row] += 1
    assert len(steps) == 800
    assert stats.kstest(steps, "uniform").pvalue > 0.01
    assert stats.chisquare([rows[row] for row in range(ROWS)]).pvalue > 0.01
    room = WINDOW - len("one!") - 2
    assert set(offsets) == set(range(room + 1))
    assert stats.chisquare([offsets[offset] for offset in range(room + 1)]).pvalue > 0.01


def test_an_insertion_falls_into_each_stretch(two: dict[str, Any]) -> None:
    """Evenly, not just uniformly on average: with the run in as many stretches as insertions, each holds one."""
    only = {"short": two["short"]}
    found = places(only, seed=3, steps=60)  # 480 windows, 60 insertions
    assert [entry.position // 8 for entry in found] == list(range(60))


def test_two_seeds_have_other_places_and_one_seed_the_same(two: dict[str, Any]) -> None:
    assert places(two, 1) == places(two, 1)
    one, other = ({entry.position for entry in places(two, seed)} for seed in (1, 2))
    assert len(one & other) < 0.3 * len(one)


def test_tokens_are_replaced_in_place_and_nowhere_else(two: dict[str, Any]) -> None:
    one, plain = trainer(two), tiny_trainer(STEPS, budget={"steps": STEPS})
    eos, tokenizer = one.plan.tokenizer.eos, one.plan.tokenizer
    texts = {"s0": "one!", "s1": "two!!", "s2": "three!!!", "l0": "late.", "l1": "later."}
    listed = {entry.position: entry for entry in ledger(one.plan)}
    changed = 0
    for batch in seen(one):
        before = plain.stream.batch()
        plain.stream.advance()
        assert batch["tokens"].shape == before["tokens"].shape
        assert torch.equal(batch["domain"], before["domain"])
        for row, position in enumerate(batch.positions.tolist()):
            expected = before["tokens"][row].tolist()
            if position in listed:
                entry = listed[position]
                ids = [eos, *tokenizer.encode([texts[entry.document]])[0], eos]
                expected[entry.offset : entry.offset + entry.tokens] = ids
                assert len(ids) == entry.tokens
                changed += 1
            assert batch["tokens"][row].tolist() == expected
    assert changed == len(listed)


def test_inputs_labels_and_mask_are_those_of_the_new_tokens(
    two: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, seen, prepare = trainer(two), list[tuple[torch.Tensor, Batch]](), CausalLM.prepare

    def recorded(self: CausalLM, batch: Batch) -> Batch:
        prepared = prepare(self, batch)
        seen.append((batch["tokens"].clone(), prepared))
        return prepared

    # Not a class of its own: a part that is defined anywhere can be named by recipes everywhere.
    monkeypatch.setattr(CausalLM, "prepare", recorded)
    for _ in range(4):
        one.train_step()
    listed = {entry.position for entry in ledger(one.plan) if entry.step < 4}
    assert listed and len(seen) == 4
    plain = tiny_trainer(STEPS, budget={"steps": STEPS})
    differing = 0
    for tokens, prepared in seen:
        assert torch.equal(prepared["inputs"], tokens[:, :-1]) and torch.equal(prepared["labels"], tokens[:, 1:])
        assert prepared["mask"].all()
        original = plain.stream.batch()["tokens"]
        plain.stream.advance()
        for row, position in enumerate(prepared.positions.tolist()):
            assert torch.equal(tokens[row], original[row]) == (position not in listed)
            differing += position in listed
    assert differing == len(listed)


def test_alone_and_together_at_the_same_places(two: dict[str, Any]) -> None:
    joint = ledger(trainer(two).plan)
    for name in two:
        alone = ledger(trainer(two, [name]).plan)
        assert alone == [entry for entry in joint if entry.intervention == name]
    whole, late = seen(trainer(two)), seen(trainer(two, ["late"]))
    for entry in joint:
        same = torch.equal(whole[entry.step]["tokens"][entry.row], late[entry.step]["tokens"][entry.row])
        assert same == (entry.intervention == "late")


def test_nothing_active_changes_nothing(two: dict[str, Any]) -> None:
    one, plain = trainer(two, []), tiny_trainer(STEPS, budget={"steps": STEPS})
    assert [one.counted_step()[0] for _ in range(6)] == [plain.counted_step()[0] for _ in range(6)]
    for ours, theirs in zip(one.learner.masters.values(), plain.learner.masters.values(), strict=True):
        assert torch.equal(ours, theirs)
    assert ledger(one.plan) == []


def test_a_long_document_goes_on_in_its_next_window(tmp_path: Path) -> None:
    text = "".join(chr(65 + i % 26) for i in range(2 * CONTEXT + 10))
    long = {"long": {"path": documents(tmp_path, "x", [text, "short"]), "repeats": 3}}
    one = trainer(long)
    found = [entry for entry in ledger(one.plan) if entry.document == "x0"]
    assert [entry.piece for entry in found] == [0, 1, 2] * 3 and {entry.offset for entry in found} == {0}
    batches = seen(one)
    predicted: list[int] = []
    for entry in found[:3]:
        window = batches[entry.step]["tokens"][entry.row][: entry.tokens].tolist()
        predicted += window[1:]
    eos = one.plan.tokenizer.eos
    assert predicted == [*one.plan.tokenizer.encode([text])[0], eos]


def test_it_is_a_document_of_its_own_where_documents_are_separate(two: dict[str, Any]) -> None:
    one = trainer(two, documents="separate")
    plain = tiny_trainer(STEPS, budget={"steps": STEPS}, documents="separate")
    batches, listed = seen(one), ledger(one.plan)
    for entry in listed:
        segments = batches[entry.step]["segments"][entry.row]
        first, last = entry.offset + 1, entry.offset + entry.tokens
        inside = segments[first:last]
        assert (inside == inside[0]).all()
        assert segments[first - 1] != inside[0] and (last == WINDOW or segments[last] != inside[0])
        assert segments[0] == 0 and (segments.diff() >= 0).all() and (segments.diff() <= 1).all()
        mask = CausalLM().prepare(batches[entry.step])["mask"][entry.row]
        assert not mask[first - 1] and mask[first : last - 1].all()
    untouched = {entry.position for entry in listed}
    for batch in batches[:5]:
        before = plain.stream.batch()["segments"]
        plain.stream.advance()
        for row, position in enumerate(batch.positions.tolist()):
            if position not in untouched:
                assert torch.equal(batch["segments"][row], before[row])
    rest = [entry for entry in listed if entry.step < 5]
    assert rest


def test_each_rank_replaces_its_own_rows(two: dict[str, Any]) -> None:
    one = trainer(two)
    for _ in range(12):
        whole = one.steering[0].replace(one.stream.batch())["tokens"]
        halves = [one.steering[0].replace(one.stream.batch(rank, 2))["tokens"] for rank in (0, 1)]
        assert torch.equal(whole, torch.cat(halves))
        one.stream.advance()


def test_micro_batches_change_nothing(two: dict[str, Any]) -> None:
    whole, pieces = trainer(two), trainer(two, batch={"tokens": 8 * CONTEXT, "micro": 2 * CONTEXT})
    for _ in range(4):
        assert whole.counted_step()[0]["loss"] == pytest.approx(pieces.counted_step()[0]["loss"], abs=1e-6)


def test_resume_is_exact(two: dict[str, Any]) -> None:
    whole = trainer(two)
    lines = [whole.counted_step()[0] for _ in range(10)]
    cut = trainer(two)
    for _ in range(5):
        cut.counted_step()
    again = trainer(two)
    again.load_state_dict(cut.state_dict())
    assert [again.counted_step()[0] for _ in range(5)] == lines[5:]


def test_an_extended_run_keeps_its_places(two: dict[str, Any]) -> None:
    first = trainer(two)
    plan = make_plan(
        make_recipe(tiny_data(budget={"steps": 2 * STEPS}, steering=[{"kind": "injection", "interventions": two}])),
        Group(),
    )
    longer = Trainer(plan, 2 * STEPS, Group(), start=STEPS)
    state = first.steering[0].state_dict()
    longer.steering[0].load_state_dict(state)
    assert longer.steering[0].state_dict() == state
    for ours, theirs in zip(seen(longer), seen(first), strict=True):
        assert torch.equal(ours["tokens"], theirs["tokens"])
    last = longer.stream.batch()
    assert longer.stream.step == STEPS and longer.steering[0].replace(last) is last


def test_a_resumed_run_refuses_other_documents(two: dict[str, Any], tmp_path: Path) -> None:
    state = trainer(two).steering[0].state_dict()
    documents(tmp_path, "s", ["one!", "two!!", "other"])
    with pytest.raises(RequestError, match="documents of its interventions changed"):
        trainer(two).steering[0].load_state_dict(state)


def test_it_teaches_what_it_puts_in(tmp_path: Path) -> None:
    """A text that the corpus does not have becomes likely where it acts, and only there."""
    text = "qzx:" * 6
    inserted = {"it": {"path": documents(tmp_path, "t", [text]), "repeats": 200}}
    losses = []
    for active in ([], ["it"]):
        one = trainer(inserted, active, optimizer={"lr": 1e-2})
        for _ in range(STEPS):
            one.counted_step()
        ids = torch.tensor(one.plan.tokenizer.encode([text]))
        with torch.no_grad():
            losses.append(float(one.learner.model(input_ids=ids, labels=ids).loss))
    assert losses[1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repeats": 200}, r"puts in 600 pieces \(3 documents, 200 times each\).*320 windows.*Lower its `repeats`"),
        ({"repeats": 40, "end": 0.25}, r"'short' puts in 120 pieces.*80 are left for it"),
    ],
)
def test_more_insertions_than_positions_are_refused(two: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        trainer({**two, "short": {**two["short"], **changes}})


def test_wrong_settings_are_refused_in_words(two: dict[str, Any], tmp_path: Path) -> None:
    def refused(said: str, **settings: Any) -> None:
        with pytest.raises(RequestError, match=said):
            tiny_trainer(STEPS, budget={"steps": STEPS}, steering=[{"kind": "injection", **settings}])

    refused("active: .*'shrot'.*[Dd]id you mean 'short'", interventions=two, active=["shrot"])
    refused("interventions", interventions={})
    refused(r"start \(0.8\) should be below end \(0.5\)", interventions={"a": {"path": "x", "start": 0.8, "end": 0.5}})
    refused("There is no file", interventions={"a": {"path": str(tmp_path / "none.jsonl")}})
    (tmp_path / "empty.txt").write_text(" \n")
    refused("holds no documents", interventions={"a": {"path": str(tmp_path / "empty.txt")}})
    part = {"kind": "injection", "interventions": two}
    with pytest.raises(RequestError, match="stands there twice"):
        tiny_trainer(STEPS, budget={"steps": STEPS}, steering=[part, part])
    with pytest.raises(RequestError, match="budget in minutes"):
        tiny_trainer(STEPS, budget={"minutes": 1}, steering=[part])
    with pytest.raises(RequestError, match="once its number of steps is"):
        ledger(tiny_plan(budget={"flops": 1e12}, steering=[part]))


def test_a_rehearsal_of_another_length_is_no_fault(two: dict[str, Any]) -> None:
    """What a step costs is found in a run of a made-up length, in which the insertions may have no room."""
    part = {"kind": "injection", "interventions": {"short": {**two["short"], "repeats": 100}}}
    trained = tiny_trainer(4, budget={"steps": STEPS}, steering=[part])
    plain = tiny_trainer(4, budget={"steps": STEPS})
    assert trained.rehearse(0, 0).flops == plain.rehearse(0, 0).flops
