"""Every command as a call: what it gives back, and the files of a run with the keys that are promised."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

import foretrain as ft
from foretrain.errors import RequestError
from foretrain.journal import read_journal
from foretrain.recipe import Recipe, make_recipe
from foretrain.run_directory import RunDirectory
from tests.processes import write_recipe
from tests.tasks.subjects import write_items
from tests.tiny import CONTEXT, tiny_data


def data(folder: Path) -> dict[str, Any]:
    items = [{"question": f"is {n} one?", "choices": ["yes", "no"], "answer": n % 2, "text": f"{n}"} for n in range(6)]
    path = write_items(folder / "items.jsonl", items)
    return tiny_data(
        name="whole",
        optimizer={"lr": 0.01},
        checkpoint={"every": 4, "keep": 5},
        tasks={
            "choice": {"kind": "multiple_choice", "path": path, "every": 0.5},
            "late": {"kind": "completion_loss", "path": path, "prompt": "question"},
        },
        probes=[{"kind": "weight_norm", "every": 0.5}],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("api")
    return ft.run(make_recipe(data(folder)), out=folder / "whole", quiet=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("api")
    return ft.run(make_recipe(tiny_data(name="other", seed=1)), out=folder / "other", quiet=True)


# What a run leaves -------------------------------------------------------------------------------------------------


def test_metrics_and_timing(run: RunDirectory) -> None:
    metrics, timing = read_journal(run.metrics_path), read_journal(run.timing_path)
    assert all({"step", "tokens", "flops"} <= line.keys() for line in metrics)
    training = [line for line in metrics if "lr" in line]
    assert all({"loss", "lr", "gradient_norm"} <= line.keys() for line in training)
    assert [line["step"] for line in training] == list(range(1, 9))
    assert [line["tokens"] for line in training] == [256 * step for step in range(1, 9)]
    costs = [b["flops"] - a["flops"] for a, b in pairwise(training)]
    assert len(set(costs)) == 1 and costs[0] > 0
    measured = {step: {name for line in metrics if line["step"] == step for name in line} for step in (0, 4, 8)}
    validation = {f"validation/{d}/{m}" for d in ("prose", "sums") for m in ("loss", "bits_per_byte")}
    for names in measured.values():
        assert validation | {"validation/loss", "probe/weight_norm/all"} <= names
    task = {f"task/choice/accuracy{end}" for end in ("", "/low", "/high")}
    assert task <= measured[4]
    assert not any("task/late" in name for names in measured.values() for name in names)
    assert [line["step"] for line in timing] == list(range(1, 9))
    for line in timing:
        assert {"step", "seconds", "tokens_per_second", "mfu", "memory", "tensor_memory"} == line.keys()
        assert 0 < line["mfu"] < 10 and line["memory"] > 1e7
    assert [line["seconds"] for line in timing] == sorted(line["seconds"] for line in timing)


def test_plan_result_and_environment(run: RunDirectory) -> None:
    plan, result, environment = run.plan(), run.result(), run.environment()
    assert {
        "total_steps",
        "tokens_per_step",
        "tokens",
        "flops_per_step",
        "flops",
        "parameters",
        "hashes",
        "domains",
        "model",
        "precision",
        "weights",
        "seed",
        "start",
        "parent",
        "notes",
        "reports",
        "memory_estimate",
    } <= plan.keys()
    assert (plan["total_steps"], plan["tokens"], plan["start"], plan["parent"]) == (8, 2048, 0, None)
    assert {"train", "validation"} <= plan["domains"]["prose"].keys()
    assert result is not None
    assert {"status", "loss", "validation", "tasks", "cost", "skipped", "hashes", "seed", "name"} <= result.keys()
    assert {"steps", "tokens", "flops", "seconds", "peak_memory", "tensor_memory"} == result["cost"].keys()
    assert (result["cost"]["steps"], result["cost"]["tokens"]) == (8, 2048)
    assert result["cost"]["flops"] == pytest.approx(plan["flops"], rel=0.02)
    assert {"value", "low", "high", "items", "higher_is_better"} <= result["tasks"]["late"]["loss"].keys()
    assert result["tasks"]["choice"]["accuracy"]["items"] == 6
    assert {"recipe", "tokenizer", "corpus", "tokens", "environment"} == result["hashes"].keys()
    assert result["loss"] == [line["loss"] for line in run.metrics() if "loss" in line][-1]
    assert environment
    for value in (plan, result, environment):
        assert json.loads(json.dumps(value, allow_nan=False)) == value


def test_the_other_files(run: RunDirectory) -> None:
    assert {"prompt", "text"} == run.samples()[0].keys()
    assert run.report_path.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert ft.load_recipe(run.recipe_path) == run.load_recipe()
    assert run.status() == "done" and run.name == "whole"
    assert (run.model_path / "tokenizer.json").is_file()


def test_the_cost_of_the_run_is_what_the_shapes_say(run: RunDirectory) -> None:
    """6 FLOPs per token and matrix parameter, and attention: an estimate made without the counter."""
    plan = run.plan()
    matrices = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 32 * plan["model"]["vocabulary"]
    attention = 2 * 2 * CONTEXT * 32 * 2  # both products of every layer, per token, over the whole square
    estimate = 3 * (2 * matrices + attention) * 2048
    assert plan["flops"] == pytest.approx(estimate, rel=0.05)


# Calls -------------------------------------------------------------------------------------------------------------


def test_open_and_list(run: RunDirectory, other: RunDirectory) -> None:
    opened = ft.open_run(run.path)
    assert opened.metrics() == run.metrics() and opened.result() == run.result()
    (row,) = ft.list_runs(run.path.parent)
    assert (row["name"], row["status"], row["step"]) == ("whole", "done", 8)
    with pytest.raises(RequestError, match=r"There is no run .*Did you mean .*whole"):
        ft.open_run(run.path.parent / "whol")


def test_check_trains_nothing(tmp_path: Path) -> None:
    recipe = make_recipe(tiny_data())
    plan = ft.check(recipe)
    assert plan.total_steps == 8 and plan.flops_per_step > 0 and plan.memory > 0
    assert ft.check(recipe, overrides=["budget.tokens=5120"]).total_steps == 20
    assert ft.check(write_recipe(tmp_path, tiny_data())).plain() == {**plan.plain()}
    assert list(tmp_path.iterdir()) == [tmp_path / "recipe.yaml"]


def test_sample(run: RunDirectory) -> None:
    texts = ft.sample(run, ["The ", "In "], tokens=5, count=2, seed=3)
    assert [text["prompt"] for text in texts] == ["The ", "The ", "In ", "In "]
    assert all(isinstance(text["text"], str) for text in texts)
    assert texts == ft.sample(run.path, ["The ", "In "], tokens=5, count=2, seed=3)
    greedy = [ft.sample(run, ["The "], tokens=8, temperature=0, seed=seed)[0]["text"] for seed in (0, 1)]
    assert greedy[0] == greedy[1]
    assert ft.sample(run, ["The "], tokens=20, step=4) != ft.sample(run, ["The "], tokens=20, step=8)


def test_evaluate(run: RunDirectory, tmp_path: Path) -> None:
    result = run.result()
    assert result is not None
    again = ft.evaluate(run)
    for task, metrics in result["tasks"].items():
        for metric, measured in metrics.items():
            assert again[task][metric]["value"] == pytest.approx(measured["value"], rel=1e-5), (task, metric)
    write_items(tmp_path / "more.jsonl", [{"text": f"more {n}"} for n in range(3)])
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("tasks: {more: {kind: completion_loss, path: more.jsonl}}\n")
    found = ft.evaluate(run, tasks=tasks, step=4)
    assert found["more"]["loss"]["items"] == 3 and math.isfinite(found["more"]["loss"]["value"])
    tasks.write_text("name: x\n")
    with pytest.raises(RequestError, match="should be a YAML file with a mapping `tasks:`"):
        ft.evaluate(run, tasks=tasks)


def test_evaluate_needs_tasks(other: RunDirectory) -> None:
    with pytest.raises(RequestError, match="names no tasks"):
        ft.evaluate(other)


def test_compare(run: RunDirectory, other: RunDirectory) -> None:
    found = ft.compare([run, other.path])
    assert [each["name"] for each in found["runs"]] == ["whole", "other"]
    assert "seed" in {row["key"] for row in found["recipe"]}
    figures = {row["name"]: row for row in found["metrics"]}
    row = figures["validation/loss"]
    assert row["values"] == [run.result()["validation"]["loss"], other.result()["validation"]["loss"]]  # type: ignore[index]
    assert row["best"] == 0, "the one with the larger learning rate"
    assert figures["task/late/loss"]["values"][1] is None


def test_show_data_shows_what_is_trained_on(run: RunDirectory) -> None:
    recipe = run.load_recipe()
    shown = ft.show_data(recipe, batches=2, rows=3)
    assert [(row["step"], row["position"]) for row in shown] == [(0, 0), (0, 1), (0, 2), (1, 8), (1, 9), (1, 10)]
    plan = ft.check(recipe)
    batch = plan.stream().batch()
    for row, tokens in zip(shown[:3], batch["tokens"], strict=False):
        assert row["text"] == plan.tokenizer.decode(tokens[:-1].tolist())
        assert (row["tokens"], row["loss_tokens"], row["masked"]) == (CONTEXT, CONTEXT, [])
        assert row["domain"] in ("prose", "sums") and len(row["documents"]) >= 1
    apart = ft.show_data(recipe, overrides=["documents=separate"], batches=8, rows=8)
    crossing = [row for row in apart if len(row["documents"]) > 1]
    assert crossing and all(row["masked"] for row in crossing if row["loss_tokens"] < CONTEXT)
    assert any(row["loss_tokens"] == CONTEXT - 1 for row in crossing)


def test_report_can_be_written_again(run: RunDirectory) -> None:
    run.report_path.unlink()
    assert ft.report(run.path) == run.report_path and run.report_path.is_file()


def test_a_budget_in_flops_is_spent_to_half_a_step(tmp_path: Path, run: RunDirectory) -> None:
    per_step = run.plan()["flops_per_step"]
    recipe: Recipe = make_recipe(tiny_data(budget={"flops": 3.3 * per_step}))
    result = ft.run(recipe, out=tmp_path / "run", quiet=True).result()
    assert result is not None and result["cost"]["steps"] == 3
    assert abs(result["cost"]["flops"] - 3.3 * per_step) <= 0.5 * per_step


def test_the_models_of_a_run_are_plain_transformers(run: RunDirectory) -> None:
    from foretrain.api import subject_of

    subject = subject_of(run)
    assert isinstance(subject.model, PreTrainedModel) and subject.context == CONTEXT


def test_names_of_the_package_are_what_it_says() -> None:
    for name in ft.__all__:
        assert callable(getattr(ft, name))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = ft.trian  # type: ignore[attr-defined]
