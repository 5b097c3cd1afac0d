"""Replay: what comes again was read before, how often, in which stages, on which rank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from scipy import stats

from foretrain.batch import Batch
from foretrain.errors import RequestError
from foretrain.steering._rehearsal import Places, Rehearsal
from foretrain.tokens.stream import LAG
from foretrain.trainer import Trainer
from tests.tiny import tiny_trainer

ROWS, STEPS = 8, 24
CORPUS = {  # random text, so that windows tell themselves apart
    name: {
        "path": "builtin:markov",
        "options": {"cluster": cluster, "symbols": 16, "length": 64, "count": 1200},
        "validation": 0.1,
    }
    for cluster, name in enumerate(("old", "middle", "new"))
}
STAGES = {
    "first": {"weights": {"old": 1}},
    "second": {"weights": {"middle": 1}},
    "third": {"weights": {"new": 2, "old": 1}},
}
TEXTS = {
    "corpus": {
        "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2},
        "sums": {"path": "builtin:arithmetic", "options": {"count": 120}, "validation": 0.2},
    },
    "optimizer": {"lr": 5e-3},
    "evaluation": {"every": 1.0, "tokens": 2048},
}
Window = tuple[str, int]


def trainer(steps: int = STEPS, *parts: Mapping[str, Any], **changes: Any) -> Trainer:
    return tiny_trainer(
        steps,
        **{"corpus": CORPUS, "stages": STAGES, "budget": {"steps": steps}, "steering": [*parts], **changes},
    )


def replay(**settings: Any) -> dict[str, Any]:
    return {"kind": "replay", **settings}


def part_of(one: Trainer) -> Rehearsal:
    return next(part for part in one.steering if isinstance(part, Rehearsal))


def follow(one: Trainer, steps: int, *, windows: bool = True) -> list[tuple[Batch, Batch, list[Window]]]:
    """What the stream gave and what was read instead, step by step, and the numbers of all windows read."""
    found = []
    for _ in range(steps):
        before = one.stream.batch()
        after = before
        for part in one.steering:
            after = part.replace(after)
        found.append((before, after, windows_of(one, after) if windows else []))
        one._mix(one.step, at=one.step + LAG)
        one.stream.advance()
        one.step += 1
    return found


def windows_of(one: Trainer, batch: Batch) -> list[Window]:
    """The windows that the rows of a batch are, found by their content among all that there are."""
    if not hasattr(one, "_known"):
        known: dict[bytes, Window] = {}
        for name, order in one.stream._orders.items():
            found = one.stream.windows_at(name, torch.arange(order.windows).numpy())["tokens"]
            assert len({row.numpy().tobytes() for row in found}) == len(found), "windows tell themselves apart"
            known |= {row.numpy().tobytes(): (name, number) for number, row in enumerate(found)}
        one._known = known  # type: ignore[attr-defined]
    windows = [one._known[row.numpy().tobytes()] for row in batch["tokens"]]  # type: ignore[attr-defined]
    assert [name for name, _ in windows] == [batch.domains[number] for number in batch["domain"].tolist()]
    return windows


def replaced(before: Batch, after: Batch) -> list[int]:
    return [row for row in range(before.rows) if not torch.equal(before["tokens"][row], after["tokens"][row])]


# Which windows give up their places --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.125, 0.3, 0.7, 1.0])
def test_places_lie_evenly_and_are_counted_without_a_list(share: float) -> None:
    places = Places(share, 7)
    taken = [number for number in range(3000) if places.taken(number)]
    for first in range(0, 2500, 97):
        for length in (8, 64, 400):
            assert abs(sum(first <= number < first + length for number in taken) - share * length) <= 2
    left = sorted(set(range(3000)) - set(taken))
    assert [places.left(number) for number in range(0, 3000, 7)] == [
        sum(other < number for other in left) for number in range(0, 3000, 7)
    ]
    assert [places.nth_left(nth, 3000) for nth in range(0, len(left), 11)] == left[::11]


def test_places_are_random_within_their_stretches() -> None:
    rows = Counter(number % 8 for number in range(16_000) if Places(0.125, 1).taken(number))
    assert stats.chisquare([rows[row] for row in range(8)]).pvalue > 0.01
    assert [n for n in range(99) if Places(0.125, 1).taken(n)] != [n for n in range(99) if Places(0.125, 2).taken(n)]


# What comes in their places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["all seen", "earlier stages", ["first"], ["first", "second"]])
def test_what_comes_again_was_read_before_and_in_these_stages(of: Any) -> None:
    one = trainer(STEPS, replay(share=0.3, of=of))
    read: list[tuple[str, Window]] = []
    again = Counter[str]()
    for before, after, windows in follow(one, STEPS):
        stage = one.context.timeline.at(before.step).name
        allowed = {
            "all seen": ("first", "second", "third"),
            "earlier stages": {"first": (), "second": ("first",), "third": ("first", "second")}[stage],
        }.get(of if isinstance(of, str) else "", of)
        sources = {window: where for where, window in reversed(read)}
        rows = replaced(before, after)
        for row in rows:
            assert sources.get(windows[row]) in allowed, "it was read, for the first time in a stage that is asked for"
            again[windows[row][0]] += 1
        possible = any(where in allowed for where, _ in read)
        assert bool(rows) == possible
        read += [(stage, window) for row, window in enumerate(windows) if row not in rows]
    assert sum(again.values()) == pytest.approx(
        0.3 * ROWS * (STEPS * 2 / 3 if of == "earlier stages" else STEPS), abs=5
    )


def test_every_window_read_is_as_likely_to_come_again() -> None:
    one = trainer(
        360,
        replay(share=0.5),
        stages={"first": {"weights": {"old": 1}, "share": 1}, "second": {"weights": {"middle": 1}, "share": 2}},
    )
    again: Counter[Window] = Counter()
    read: set[Window] = set()
    for before, after, windows in follow(one, 120):
        rows = replaced(before, after)
        read |= {window for row, window in enumerate(windows) if row not in rows}
    held = sorted(read)
    for before, after, windows in follow(one, 240):
        again.update(window for row in replaced(before, after) if (window := windows[row]) in read)
    # Each of the windows of the first stage is drawn equally often on average.
    counts = [again[window] for window in held if window[0] == "old"]
    assert stats.chisquare(counts).pvalue > 0.01 and sum(counts) > 200


def test_realised_shares_are_told() -> None:
    one = trainer(STEPS, replay(share=0.25, of="earlier stages"))
    figures: dict[str, float] = {}
    again = Counter[str]()
    for before, after, windows in follow(one, STEPS):
        figures |= one.figures
        again.update(windows[row][0] for row in replaced(before, after))
        assert one.figures["replay/share"] in (0.0, 0.125, 0.25, 0.375, 0.5)
    assert set(again) == {"old", "middle"}
    for name, count in again.items():
        assert figures[f"replay/{name}"] == pytest.approx(count / sum(again.values()), abs=0.04)
    # In the second stage all is old; in the third, old and middle in proportion to what was read of them.
    assert again["old"] == pytest.approx(16 + 16 * 64 / (64 + 48), abs=3)


def test_a_share_by_stage() -> None:
    one = trainer(STEPS, replay(share={"third": 0.5}, of="all seen"))
    counts = Counter[str]()
    for before, after, _ in follow(one, STEPS, windows=False):
        counts[one.context.timeline.at(before.step).name] += len(replaced(before, after))
    assert set(+counts) == {"third"} and counts["third"] == pytest.approx(0.5 * ROWS * 8, abs=3)


def test_rows_that_are_not_replaced_stay_as_they_were() -> None:
    one, plain = trainer(STEPS, replay(share=0.25)), trainer(STEPS)
    for (before, after, _), (_, theirs, _) in zip(
        follow(one, STEPS, windows=False), follow(plain, STEPS, windows=False), strict=True
    ):
        assert all(torch.equal(before[name], theirs[name]) for name in theirs)
        kept = torch.tensor([row for row in range(ROWS) if row not in replaced(before, after)])
        assert all(torch.equal(after[name][kept], theirs[name][kept]) for name in theirs)


def test_each_rank_replaces_its_own_rows() -> None:
    one, ranks = trainer(STEPS, replay(share=0.3)), [trainer(STEPS, replay(share=0.3)) for _ in range(2)]
    for _ in range(STEPS):
        whole = one.steering[0].replace(one.stream.batch())
        halves = [each.steering[0].replace(each.stream.batch(rank, 2)) for rank, each in enumerate(ranks)]
        for name in whole:
            assert torch.equal(whole[name], torch.cat([half[name] for half in halves]))
        for each in (one, *ranks):
            each._mix(each.step, at=each.step + LAG)
            each.stream.advance()
            each.step += 1
    assert one.steering[0].state_dict() == ranks[0].steering[0].state_dict() == ranks[1].steering[0].state_dict()


def test_resume_is_exact_across_stages() -> None:
    whole = trainer(STEPS, replay(share=0.3))
    lines = [whole.counted_step()[0] for _ in range(STEPS)]
    for at in (1, 11):
        cut, again = trainer(STEPS, replay(share=0.3)), trainer(STEPS, replay(share=0.3))
        for _ in range(at):
            cut.counted_step()
        again.load_state_dict(cut.state_dict())
        assert [again.counted_step()[0] for _ in range(STEPS - at)] == lines[at:]
        for name, weight in whole.learner.masters.items():
            assert torch.equal(weight, again.learner.masters[name])


def test_documents_of_a_replaced_row_are_its_own() -> None:
    one = trainer(STEPS, replay(share=0.5), documents="separate")
    for before, after, windows in follow(one, STEPS):
        for row in replaced(before, after):
            name, number = windows[row]
            own = one.stream.windows_at(name, torch.tensor([number]).numpy())
            assert torch.equal(own["segments"][0], after["segments"][row])


# Together with other parts -----------------------------------------------------------------------------------------


def test_a_moving_mixture_and_replay_in_two_lines() -> None:
    """Skill-It moves what is drawn, and what comes again was read all the same, in the share that was asked for."""
    skills = {
        "kind": "skill_it",
        "graph": "identity",
        "eta": 4.0,
        "every": 2,
        "per_round": 2,
        "window": 1,
        "tokens": 256,
    }
    corpus = {name: {**domain, "steer": 0.05} for name, domain in CORPUS.items()}
    one = trainer(STEPS, skills, replay(share=0.25), stages={}, corpus=corpus)
    part, weights = part_of(one), []
    read: set[Window] = set()
    count = 0
    for _ in range(STEPS):
        before, state = one.stream.batch(), part.state_dict()
        after = part.replace(before)
        part.load_state_dict(state)
        rows, windows = replaced(before, after), windows_of(one, after)
        assert all(windows[row] in read for row in rows)
        read |= {window for row, window in enumerate(windows) if row not in rows}
        count += len(rows)
        figures = one.train_step()
        assert figures["replay/share"] == len(rows) / ROWS
        weights.append(figures["domain/old/weight"])
    assert max(weights) - min(weights) > 0.02, "the mixture moves"
    assert count == pytest.approx(0.25 * ROWS * (STEPS - 1), abs=4)


def test_what_an_earlier_part_took_out_counts_again() -> None:
    one = trainer(STEPS, replay(share=0.5))
    follow(one, 3)
    batch = one.stream.batch()
    taken_out = batch.with_(valid=torch.zeros_like(batch["tokens"], dtype=torch.bool))
    found = part_of(one).replace(taken_out)
    rows = replaced(batch, found)
    assert rows and found["valid"][rows].all() and found["valid"].any(1).sum() == len(rows)


# A run that goes on from another, and what is refused --------------------------------------------------------------


def test_a_run_that_goes_on_replays_what_the_other_one_read() -> None:
    other = trainer(8, stages={"first": STAGES["first"]})
    follow(other, 8, windows=False)
    one = trainer(STEPS, replay(share=0.5, of="earlier stages"), stages={"second": STAGES["second"]})
    one.load_seen({"parts": {"stream": other.stream.state_dict()}}, {"old"})
    before, after, windows = follow(one, 1)[0]
    rows = replaced(before, after)
    assert len(rows) == ROWS // 2
    assert all(windows[row][0] == "old" and windows[row][1] < 8 * ROWS for row in rows)


def test_nothing_to_bring_back_is_said() -> None:
    one = trainer(STEPS, replay(of="earlier stages"), stages={})
    follow(one, 4, windows=False)
    assert len(one.warnings) == 1 and "the recipe has no `stages`" in one.warnings[0]
    quiet = trainer(STEPS, replay(of="earlier stages"))
    follow(quiet, STEPS, windows=False)
    assert quiet.warnings == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"of": ["frist"]}, r"steering 'replay': of: there is no stage 'frist'; did you mean 'first'\?"),
        ({"share": {"thrid": 0.1}}, r"steering 'replay': share: there is no stage 'thrid'; did you mean 'third'\?"),
        ({"of": "first"}, r"steering\[0\].of: Input should be 'all seen' or 'earlier stages' .given: 'first'"),
        ({"share": 1.5}, r"steering\[0\].share: Input should be less than or equal to 1 .given: 1.5"),
        (
            {"share": {"third": -0.5}},
            r"steering\[0\].share.third: Input should be greater than or equal to 0 .given: -0.5",
        ),
    ],
)
def test_wrong_settings_are_refused_in_words(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        trainer(STEPS, replay(**settings))
    if "of" in settings and isinstance(settings["of"], list):
        with pytest.raises(RequestError, match="the recipe has no stage, so no 'frist'"):
            trainer(STEPS, replay(**settings), stages={})


def test_replay_keeps_what_was_learnt() -> None:
    """Two stages of a tiny model: with replay the first domain's loss rises less."""
    stages = {"first": {"weights": {"prose": 1}}, "second": {"weights": {"sums": 1}}}
    ends = []
    for parts in ((), (replay(share=0.25),)):
        one = tiny_trainer(60, budget={"steps": 60}, steering=[*parts], stages=stages, **TEXTS)
        for _ in range(60):
            one.measure()
            one.train_step()
        ends.append(one.measure())
    assert ends[1]["stages/forgetting"] < 0.6 * ends[0]["stages/forgetting"]
    assert ends[1]["stages/retained"] < ends[0]["stages/retained"]
