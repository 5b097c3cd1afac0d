"""Documents drawn by score: with the chances that they should have, and anew in each pass where that is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from foretrain.errors import RequestError
from foretrain.plan import make_plan
from foretrain.recipe import make_recipe
from foretrain.tokens.arranged import Arranged
from foretrain.tokens.orders.repeated import Repeated
from foretrain.tokens.orders.shuffled import Shuffled
from foretrain.tokens.redrawn import Redrawn
from foretrain.tokens.selection import Keep
from foretrain.tokens.shards import TokenSet

MakeSet = Callable[..., TokenSet]
LENGTHS = [3, 5, 1, 8, 2, 12, 4, 1, 1, 6]


@pytest.mark.parametrize("best", ["highest", "lowest"])
def test_the_first_document_is_drawn_in_proportion_to_exp_of_its_score(best: Any) -> None:
    scores, temperature, draws = np.array([0.0, 1.0, 2.0, 4.0]), 0.8, 4000
    keep = Keep(tokens=1, best=best, temperature=temperature)
    found = Counter(int(keep.chosen(np.ones(4, np.int64), scores, seed)[0]) for seed in range(draws))
    chances = np.exp((1 if best == "highest" else -1) * scores / scores.std() / temperature)
    chances /= chances.sum()
    deviations = [(found[i] - draws * p) / np.sqrt(draws * p * (1 - p)) for i, p in enumerate(chances)]
    assert max(map(abs, deviations)) < 4


def test_the_ends_are_the_best_and_any() -> None:
    sizes, scores = np.arange(1, 101), np.random.default_rng(0).normal(size=100)
    best = Keep(share=0.3, best="highest").chosen(sizes, scores, 5)
    cold = Keep(share=0.3, best="highest", temperature=1e-6).chosen(sizes, scores, 5)
    assert np.array_equal(best, cold)
    hot = [Keep(share=0.3, best="highest", temperature=1e6).chosen(sizes, scores, seed) for seed in range(40)]
    assert abs(np.mean([scores[each].mean() for each in hot]) - scores.mean()) < 0.1
    assert all(sizes[each].sum() >= 0.3 * sizes.sum() for each in hot)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="`redraw` needs a `temperature`"):
        Keep(share=0.5, best="highest", redraw=True)
    with pytest.raises(ValidationError, match="`random` goes by none"):
        Keep(share=0.5, best="random", temperature=1)
    plain = Keep(share=0.5, best="random").model_dump(mode="json")
    assert plain == {"share": 0.5, "tokens": None, "best": "random"}, "older recipes keep their hashes"


def redrawn(base: TokenSet, **changes: Any) -> Redrawn:
    keep = Keep(**{"tokens": 17, "best": "highest", "temperature": 1.0, "redraw": True, **changes})
    return Redrawn(base, keep, np.array(LENGTHS), np.arange(10.0), 3)


def test_every_pass_is_a_draw_of_its_own(make_set: MakeSet) -> None:
    base = make_set(LENGTHS)
    found = redrawn(base)
    assert found.tokens == 17
    names = []
    for number in range(6):
        ring = found.drawn(number)
        assert isinstance(ring, Arranged) and ring.tokens >= 17
        starts = np.arange(17, dtype=np.int64)
        assert np.array_equal(found.gather(number * 17 + starts, 4), ring.gather(starts, 4))
        assert np.array_equal(found.segments(number * 17 + starts, 4), ring.segments(starts, 4))
        assert found.names(number * 17 + 3, 5) == ring.names(3, 5)
        names.append(tuple(ring.names(0, ring.tokens)))
    assert len(set(names)) > 1
    again = redrawn(base)
    assert np.array_equal(again.gather(np.array([80, 3]), 6), found.gather(np.array([80, 3]), 6)), "in any order"
    assert len({found.hash, redrawn(base, temperature=2.0).hash, redrawn(base, tokens=18).hash}) == 3


def test_each_window_of_a_pass_comes_once(make_set: MakeSet) -> None:
    found = redrawn(make_set(LENGTHS))
    order = Shuffled().windows(found, 4, 9)
    starts = order.starts(np.arange(3 * order.windows, dtype=np.int64)).reshape(3, -1)
    for number, mine in enumerate(starts):
        places = np.sort(mine - number * 17)
        assert np.array_equal(np.diff(places), np.full(order.windows - 1, 4))
        assert places[0] >= 0 and places[-1] + 4 <= 17
    backwards = Shuffled().windows(found, 4, 9).starts(np.arange(3 * order.windows, dtype=np.int64)[::-1].copy())
    assert np.array_equal(backwards[::-1].reshape(3, -1), starts)


RECIPE: dict[str, Any] = {
    "budget": {"steps": 3},
    "tokenizer": "byte",
    "model": {"kind": "llama", "layers": 1, "width": 16, "heads": 1, "context": 32},
    "corpus": {
        "people": {
            "path": "builtin:biographies",
            "options": {"people": 60},
            "validation": 0.2,
            "score": "random",
            "keep": {"share": 0.2, "best": "highest", "temperature": 1, "redraw": True},
        }
    },
    "batch": {"tokens": 256},
}


def test_a_recipe_draws_anew() -> None:
    plan = make_plan(make_recipe(RECIPE))
    stream = plan.stream()
    seen: list[set[str]] = [set(), set()]
    while stream.epoch("people") < 2:
        place = int(stream.epoch("people"))
        for row in range(stream.rows):
            seen[place].update(stream.sources(row))
        stream.advance()
    assert seen[0] != seen[1] and len(seen[0] | seen[1]) > len(seen[0])
    with pytest.raises(RequestError, match="`redraw` draws documents anew"):
        make_recipe({**RECIPE, "corpus": {"people": {**RECIPE["corpus"]["people"], "order": "sorted"}}})
    with pytest.raises(RequestError, match="leave one out"):
        make_recipe({**RECIPE, "corpus": {"people": {**RECIPE["corpus"]["people"], "unique": 500}}})


def test_documents_are_repeated_as_their_scores_say(make_set: MakeSet) -> None:
    places = Repeated().arranged(np.array([0.0, 1.0, 3.0, 2.0]))
    assert places is not None and sorted(places.tolist()) == [1, 2, 2, 2, 3, 3]
    many = Repeated().arranged(np.full(4000, 2.25))
    assert many is not None
    copies = np.bincount(many)
    assert set(copies.tolist()) == {2, 3} and abs((copies == 3).mean() - 0.25) < 0.03
    spread = Repeated().arranged(np.full(1000, 3.0))
    assert spread is not None and (np.diff(spread) == 0).mean() < 0.01, "copies are far from each other"
    base = make_set(LENGTHS)
    assert Arranged(base, np.array([2, 2, 5])).tokens == 2 * LENGTHS[2] + LENGTHS[5]
    for scores, words in (
        (np.array([-1.0, 2.0]), "one is -1"),
        (np.array([1e9]), "one is 1e"),
        (np.zeros(3), "no document"),
    ):
        with pytest.raises(RequestError, match=words):
            Repeated().arranged(scores)
