"""Orders of a domain: sorted windows against a plain sort, epochs, resuming; and what a recipe makes of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretrain import api, views
from foretrain.checks.trial import OF_MODALITY
from foretrain.distributed import Group
from foretrain.errors import CorruptFile, RequestError
from foretrain.overrides import with_changes
from foretrain.plan import make_plan
from foretrain.recipe import Domain, make_recipe
from foretrain.reports.run_tables import data_table
from foretrain.tokens import prepare as module
from foretrain.tokens.arranged import Arranged
from foretrain.tokens.orders.sorted import Sorted
from foretrain.tokens.prepare import Prepared, prepare
from foretrain.tokens.tokenizers.byte import Byte
from foretrain.trainer import Trainer
from tests.tiny import tiny_data

SCORE = {"kind": "field", "field": "quality"}


# Windows ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 60), st.integers(0, 2**60), st.integers(0, 3))
def test_windows_come_bucket_after_bucket(tokens: int, stride: int, buckets: int, key: int, epoch: int) -> None:
    tokens = max(tokens, stride)
    order = Sorted(buckets=buckets).windows(SimpleNamespace(tokens=tokens), stride, key)  # type: ignore[arg-type]
    count = order.windows
    starts = order.starts(np.arange(count, dtype=np.int64) + epoch * count)
    assert sorted(starts.tolist()) == [place * stride for place in range(tokens // stride)]
    # Each window's bucket is that of its place in the sorted text, and buckets only rise.
    found = [start // stride * min(buckets, count) // count for start in starts.tolist()]
    assert found == sorted(found)


def test_epochs_start_over_and_are_shuffled_anew() -> None:
    order = Sorted(buckets=5).windows(SimpleNamespace(tokens=100), 1, 7)  # type: ignore[arg-type]
    first, second = order.starts(np.arange(100)), order.starts(np.arange(100, 200))
    assert first.tolist() != second.tolist() and set(first[:20]) == set(second[:20]) == set(range(20))
    across = order.starts(np.arange(90, 110)).tolist()
    assert across == [*first[90:], *second[:10]]
    single = Sorted(buckets=100).windows(SimpleNamespace(tokens=100), 1, 7)  # type: ignore[arg-type]
    assert single.starts(np.arange(200)).tolist() == [*range(100), *range(100)]


def test_both_directions() -> None:
    scores = np.array([3.0, -1.0, 2.0, 2.5])
    assert Sorted().arranged(scores).tolist() == [1, 2, 3, 0]
    assert Sorted(descending=True).arranged(scores).tolist() == [0, 3, 2, 1]


# In a recipe --------------------------------------------------------------------------------------------------------


@pytest.fixture
def domain(tmp_path: Path) -> Callable[..., Domain]:
    path = tmp_path / "graded.jsonl"
    lines = [
        {
            "id": f"d{number}",
            "text": f"{number:03d} " + "abcdefg "[number % 7 :] * (1 + number % 5),
            "quality": number % 10,
        }
        for number in range(80)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def make(**settings: Any) -> Domain:
        return Domain.model_validate({"path": str(path), "validation": 0.2, **settings})

    return make


def _names(prepared: Prepared) -> list[str]:
    found = prepared.sets["a"]["train"]
    return found.names(0, found.tokens)


def _quality(names: list[str]) -> list[int]:
    return [int(name[1:]) % 10 for name in names]


def test_a_domain_is_sorted_by_its_scores(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    cache = tmp_path / "cache"
    plain = prepare({"a": domain()}, Byte(), cache=cache)
    up = prepare({"a": domain(score=SCORE, order="sorted")}, Byte(), cache=cache)
    down = prepare({"a": domain(score=SCORE, order={"kind": "sorted", "descending": True})}, Byte(), cache=cache)
    assert sorted(_names(plain)) == sorted(_names(up)) == sorted(_names(down))
    assert _quality(_names(up)) == sorted(_quality(_names(up))) == _quality(_names(down))[::-1]
    hashes = [found.hashes["tokens"]["a"] for found in (plain, up, down)]
    assert len({found["train"] for found in hashes}) == 3 and len({found["validation"] for found in hashes}) == 1
    assert up.hashes["corpus"] == plain.hashes["corpus"] and "scores" not in plain.hashes
    assert up.hashes["scores"] == down.hashes["scores"]
    more = prepare({"a": domain(score=SCORE, order={"kind": "sorted", "buckets": 7})}, Byte(), cache=cache)
    assert more.hashes["tokens"]["a"]["train"] != hashes[1]["train"], "another order of the same arrangement"


def test_the_best_are_kept_and_then_sorted(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    cache = tmp_path / "cache"
    keep = {"share": 0.3, "best": "highest"}
    kept = prepare({"a": domain(score=SCORE, keep=keep)}, Byte(), cache=cache)
    everything = prepare({"a": domain()}, Byte(), cache=cache).sets["a"]["train"]
    found = kept.sets["a"]["train"]
    least = min(_quality(_names(kept)))
    others = set(everything.names(0, everything.tokens)) - set(_names(kept))
    assert max(_quality(list(others))) <= least, "who is left out is no better"
    assert 0.3 * everything.tokens <= found.tokens < 0.3 * everything.tokens + 60
    assert _names(kept) == [name for name in everything.names(0, everything.tokens) if name not in others]
    ordered = prepare({"a": domain(score=SCORE, keep=keep, order="sorted")}, Byte(), cache=cache)
    assert set(_names(ordered)) == set(_names(kept)) and _quality(_names(ordered)) == sorted(_quality(_names(kept)))
    assert kept.reports["a"]["kept scores"]["lowest"] == least and kept.reports["a"]["scores"]["lowest"] == 0


def test_a_random_part_is_drawn_by_the_seed_and_needs_no_score(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    keep = {"tokens": 300, "best": "random"}
    drawn = [_names(prepare({"a": domain(keep=keep)}, Byte(), cache=tmp_path / "c", seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_scores_are_made_once_and_tokens_not_again(
    tmp_path: Path, domain: Callable[..., Domain], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, made = tmp_path / "cache", []
    scores = module.document_scores.__globals__["Scorer"].__subclasses__()
    kind = next(part for part in scores if part.name() == "field")
    original = kind.scores
    monkeypatch.setattr(kind, "scores", lambda self, documents: made.append(self.field) or original(self, documents))
    for settings in ({"keep": {"share": 0.5, "best": "lowest"}}, {"order": "sorted"}, {}):
        prepare({"a": domain(score=SCORE, **settings)}, Byte(), cache=cache)
    prepare({"b": domain(score=SCORE)}, Byte(), cache=cache)
    assert made == ["quality"] and len(list((cache / "tokens").glob("[!.]*"))) == 1


def test_damaged_scores_are_told(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    cache = tmp_path / "cache"
    prepare({"a": domain(score=SCORE)}, Byte(), cache=cache)
    file = next((cache / "scores").glob("*/train.npy"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    for damaged in (bytes(content), bytes(content[:-8]), b""):
        file.write_bytes(damaged)
        with pytest.raises(CorruptFile, match=r"scores in .* are damaged"):
            prepare({"a": domain(score=SCORE)}, Byte(), cache=cache)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": {"share": 0.1, "best": "lowest"}}, "keep: documents of the lowest score need a `score`"),
        ({"order": "sorted"}, "order: 'sorted' goes by a `score`"),
        ({"order": "sorted", "score": SCORE, "unique": 64}, "use `keep` instead"),
        ({"order": "sortd"}, "did you mean 'sorted'"),
    ],
)
def test_what_does_not_fit_together(domain: Callable[..., Domain], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){said}"):
        domain(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"score": {"kind": "field", "field": "qualty"}}, "corpus.a.score: .*no field 'qualty'.*'quality'"),
        ({"keep": {"tokens": 10**6, "best": "random"}}, r"corpus.a.keep: the training split .* fewer than the 1000000"),
    ],
)
def test_what_the_corpus_does_not_have(
    tmp_path: Path, domain: Callable[..., Domain], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        prepare({"a": domain(**settings)}, Byte(), cache=tmp_path / "cache")


def test_recipes_without_any_of_it_are_what_they_were() -> None:
    plain = make_recipe(tiny_data()).plain()
    assert not {"score", "keep", "order", "where"} & set(plain["corpus"]["prose"])
    data = with_changes(tiny_data(), {"corpus.prose.score": SCORE, "corpus.prose.order": "sorted"})
    data = with_changes(data, {"corpus.prose.order.buckets": 3})
    recipe = make_recipe(data)
    assert recipe.plain()["corpus"]["prose"]["order"] == {"kind": "sorted", "descending": False, "buckets": 3}
    assert make_recipe(recipe.plain()) == recipe


# In a run -----------------------------------------------------------------------------------------------------------

SORTED: dict[str, Any] = {
    "corpus": {
        "sums": {
            "path": "builtin:arithmetic",
            "options": {"count": 120},
            "validation": 0.2,
            "score": {"kind": "field", "field": "steps"},
            "order": {"kind": "sorted", "buckets": 100_000},
            "keep": {"share": 0.25, "best": "lowest"},
        },
        "prose": {"path": "builtin:biographies", "options": {"people": 150}, "validation": 0.2},
    }
}


def test_the_plan_says_what_is_kept() -> None:
    plan = make_plan(make_recipe(tiny_data(**SORTED)), Group())
    train, found = plan.plain()["domains"]["sums"]["train"], plan.sets("train")["sums"]
    assert isinstance(found, Arranged)
    assert train["tokens"] == found.tokens and train["kept_of"]["tokens"] == found.base.tokens > 3 * found.tokens
    assert plan.epochs()["sums"] == pytest.approx(8 * 256 / 2 / found.tokens)
    assert "kept_of" not in plan.plain()["domains"]["prose"]["train"]
    assert views._tokens(train).endswith(" in 96")
    row = next(row for row in data_table(plan.plain())["rows"] if row[:2] == ["sums", "train"])
    assert row[3] == f"{found.documents:,} kept of 96" and row[4].endswith(f"kept of {found.base.tokens:,}")
    assert any("is read in the order of its scores, and the run reads" in note for note in plan.notes)


def test_a_run_goes_from_low_to_high_and_resumes_exactly() -> None:
    plan = make_plan(make_recipe(tiny_data(**SORTED)), Group())
    trainer, steps = Trainer(plan, 8, Group()), []
    for _ in range(4):
        batch = trainer.stream.batch()
        for row in range(batch.rows):
            if batch.domains[int(batch["domain"][row])] == "sums":
                steps.append(trainer.stream.sources(row))
        trainer.train_step()
    whole = plan.sets("train")["sums"]
    order = whole.names(0, whole.tokens)
    places = [order.index(names[0]) for names in steps]
    assert places == sorted(places) and len(set(places)) > 1
    state = copy.deepcopy(trainer.state_dict())
    resumed = Trainer(plan, 8, Group())
    resumed.load_state_dict(state)
    seen = trainer.stream.windows_at("sums", np.arange(trainer.stream.seen("sums")))
    assert len(seen["tokens"]) == trainer.stream.seen("sums")
    for _ in range(3):
        assert torch.equal(trainer.stream.batch()["tokens"], resumed.stream.batch()["tokens"])
        assert trainer.train_step() == resumed.train_step()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"score": SCORE}, r"corpus\.shapes\.score: scorer 'field' works on text"),
        ({"keep": {"share": 0.5, "best": "random"}}, r"corpus\.shapes\.keep is a setting of text"),
    ],
)
def test_images_are_not_selected(settings: dict[str, Any], said: str) -> None:
    images = OF_MODALITY["image"]
    corpus = {name: {**domain, **settings} for name, domain in images["corpus"].items()}
    with pytest.raises(RequestError, match=said):
        make_plan(make_recipe(tiny_data(**{**images, "corpus": corpus})), Group())


def test_a_run_refuses_other_scores(tmp_path: Path, domain: Callable[..., Domain]) -> None:
    reference = tmp_path / "reference.txt"
    reference.write_text("abc abd abe " * 40)
    recipe = tiny_data(
        corpus={
            "a": {
                "path": str(tmp_path / "graded.jsonl"),
                "validation": 0.2,
                "score": {"kind": "ngram_perplexity", "reference": str(reference)},
                "order": "sorted",
            }
        },
        budget={"steps": 2},
    )
    out = tmp_path / "run"
    api.run(make_recipe(recipe), out=out, until=0.5, quiet=True)
    reference.write_text("xyz xyy " * 40)
    with pytest.raises(RequestError, match="the scores of domain a"):
        api.run(make_recipe(recipe), out=out, quiet=True)
