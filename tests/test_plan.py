"""A recipe fully resolved: shapes and counts, and requests that do not fit told in words before anything is trained."""

from __future__ import annotations

import json
from typing import Any

import pytest

from foretrain import api, flops, views
from foretrain.distributed import Group
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.plan import make_plan
from tests.tasks.subjects import byte_tokenizer, model, write_items
from tests.tiny import CONTEXT, tiny_data, tiny_plan, tiny_recipe, tiny_trainer

BERT = {"kind": "bert", "layers": 1, "width": 32, "heads": 2, "context": CONTEXT}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": {"tokens": 31}}, r"batch.tokens: 31 tokens are less than one window of 32 \(model.context\)"),
        ({"batch": {"tokens": 256, "micro": 16}}, r"batch.micro: 16 tokens are less than one window of 32"),
        ({"model": BERT}, "objective 'causal_lm' trains a decoder, but model 'bert' is an encoder"),
        ({"budget": {"tokens": 100}}, "100 tokens are less than one step of 256"),
        (
            {
                "corpus": {"prose": {"path": "builtin:biographies", "options": {"people": 2}}},
                "model": {"context": 8192},
            },
            "fewer than one window of 8193",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_training(changes: dict[str, Any], said: str) -> None:
    if "context" in changes.get("model", {}) and "kind" not in changes["model"]:
        changes = {
            **changes,
            "model": {"kind": "llama", "preset": "0.2M", **changes["model"]},
            "batch": {"tokens": 8192},
        }
    with pytest.raises(RequestError, match=said):
        tiny_plan(**changes)


def test_rows_must_share_out_over_processes(tmp_path: Any) -> None:
    recipe = tiny_recipe(batch={"tokens": 7 * CONTEXT})
    with pytest.raises(RequestError, match="7 windows a step cannot be shared evenly by 2 processes"):
        make_plan(recipe, _Two())
    plan = make_plan(tiny_recipe(batch={"tokens": 8 * CONTEXT, "micro": 100 * CONTEXT}), _Two())
    assert (plan.rows, plan.micro_rows) == (8, 4)


class _Two(Group):
    """Two processes, of which this one does not wait for the other."""

    def __init__(self) -> None:
        super().__init__(rank=0, world=2)

    def wait(self) -> None: ...


def test_a_pretrained_model_must_fit_context_and_tokenizer(tmp_path: Any) -> None:
    folder = str(tmp_path / "model")
    model(context=48, vocabulary=390).save_pretrained(folder)
    byte_tokenizer().save(tmp_path / "model")
    with pytest.raises(RequestError, match=r"model.context: 64 tokens are more than the 48 positions"):
        tiny_plan(model={"kind": "pretrained", "path": folder, "context": 64}, tokenizer=None)
    with pytest.raises(RequestError, match=r"tokenizer does not fit the model: it has \d+ ids, .* has 390 rows"):
        tiny_plan(model={"kind": "pretrained", "path": folder}, tokenizer={"kind": "bpe", "vocabulary": 512})
    plan = tiny_plan(model={"kind": "pretrained", "path": folder}, tokenizer=None)
    assert plan.context == 48 and plan.tokenizer.hash == byte_tokenizer().hash


def test_shapes_and_counts() -> None:
    plan = tiny_plan(batch={"tokens": 8 * CONTEXT + 31, "micro": 3 * CONTEXT + 1}, budget={"tokens": "2560"})
    assert (plan.rows, plan.micro_rows, plan.context, plan.window) == (8, 3, 32, 33)
    assert (plan.tokens_per_step, plan.total_steps) == (256, 10)
    assert plan.weights == {"prose": pytest.approx(2 / 3), "sums": pytest.approx(1 / 3)}
    built = plan.build_model()
    assert plan.parameters["total"] == sum(parameter.numel() for parameter in built.parameters())
    told = plan.plain()
    assert json.loads(json.dumps(told)) == told
    assert told["flops_per_step"] == flops.analytic_step(plan.config, 8, 32)
    assert told["flops"] == 10 * told["flops_per_step"]
    assert told["hashes"]["recipe"] == hash_data(plan.recipe.plain())
    assert set(told["hashes"]["corpus"]) == set(told["hashes"]["tokens"]) == {"prose", "sums"}
    splits = told["domains"]["prose"]
    assert splits["train"]["documents"] + splits["validation"]["documents"] == 150


def test_budgets_that_need_a_rehearsal_stay_open() -> None:
    plan = tiny_plan(budget={"flops": 1e9})
    assert plan.total_steps is None and plan.plain()["tokens"] is None


def test_items_of_a_task_in_the_corpus_are_refused_or_warned_of(tmp_path: Any) -> None:
    text = "the quick brown fox jumps over the lazy dog while nine more words stand here in a row today"
    corpus = write_items(tmp_path / "c.jsonl", [{"text": f"{text} {n}"} for n in range(40)])
    items = write_items(tmp_path / "t.jsonl", [{"text": text}])
    changes: dict[str, Any] = {
        "corpus": {"own": {"path": corpus, "validation": 0.1}},
        "tasks": {"fox": {"kind": "completion_loss", "path": items}},
    }
    with pytest.raises(RequestError, match=r"fox.*`overlap: warn`"):
        tiny_plan(**changes)
    assert any("fox" in note for note in tiny_plan(**changes, overlap="warn").notes)
    feedback = {"same": {"path": items}}
    with pytest.raises(RequestError, match="same"):
        tiny_plan(feedback=feedback, tasks=changes["tasks"])
    with pytest.raises(RequestError, match="feedback same"):
        tiny_plan(corpus=changes["corpus"], feedback=feedback)


def _limited(**unique: Any) -> dict[str, Any]:
    corpus = tiny_data()["corpus"]
    return {name: {**domain, "unique": unique.get(name)} for name, domain in corpus.items()}


def test_a_limited_domain_in_the_plan() -> None:
    whole, plan = tiny_plan(budget={"steps": 30}), tiny_plan(budget={"steps": 30}, corpus=_limited(prose="1000"))
    assert plan.unique == {"prose": 31 * CONTEXT} and whole.unique == {}
    assert plan.epochs()["prose"] == pytest.approx(30 * 256 * 2 / 3 / (31 * 32))
    assert plan.epochs()["sums"] == whole.epochs()["sums"]
    told, before = plan.plain()["domains"], whole.plain()["domains"]
    assert told["prose"]["train"] == {**before["prose"]["train"], "unique": 992}
    assert told["prose"]["validation"] == before["prose"]["validation"] and told["sums"] == before["sums"]
    assert plan.hashes["tokens"] == whole.hashes["tokens"] and plan.hashes["corpus"] == whole.hashes["corpus"]
    stream, targets = plan.stream(), set()
    while stream.seen("prose") < 62:
        batch = stream.batch()
        targets |= {tuple(row) for row in batch["tokens"][batch["domain"] == 0].tolist()}
        stream.advance()
    assert len(targets) == 31
    shown = api.show_data(plan.recipe, batches=20, rows=8)
    assert {row["text"] for row in shown if row["domain"] == "prose"} == {
        plan.tokenizer.decode(row[:-1]) for row in targets
    }
    assert "992 of" in str(views.plan(plan.plain())[1].columns[2]._cells[0])  # type: ignore[union-attr]


def test_more_distinct_tokens_than_there_are_is_told() -> None:
    with pytest.raises(RequestError, match=r"corpus.sums.unique: the training split of domain 'sums' has \d+ tokens"):
        tiny_plan(corpus=_limited(sums="4M"))


def test_the_split_that_is_measured_on() -> None:
    corpus = {name: {**domain, "steer": 0.3} for name, domain in tiny_data()["corpus"].items()}
    judged, steered = tiny_trainer(corpus=corpus), tiny_trainer(corpus=corpus, evaluation={"split": "steer"})
    for trainer, split in ((judged, "validation"), (steered, "steer")):
        assert {name: found.hash for name, found in trainer.validation.sets.items()} == {
            name: found.hash for name, found in trainer.plan.sets(split).items()
        }
        figures = trainer.validation.measure(trainer.learner, trainer.objective, Group())
        assert set(figures) >= {"validation/loss", "validation/prose/bits_per_byte"}
    assert any("the steer split" in note for note in steered.plan.notes) and not judged.plan.notes
    with pytest.raises(RequestError, match=r"evaluation.split: no domain has a steer split.*corpus.prose.steer: 0.02"):
        tiny_plan(evaluation={"split": "steer"})
