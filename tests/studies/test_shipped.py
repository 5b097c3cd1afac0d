"""The demo and the studies beside the recipes: each runs to its verdicts, made small enough for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

import foretrain
from foretrain.studies.commands import study

DEMO = Path(foretrain.__file__).parent / "recipes" / "demo.yaml"
BESIDE = Path(__file__).parents[2] / "recipes" / "studies"
SMALL = (
    "seeds=1",
    "executor.kind=inline",
    "base.budget.steps=2",
    "base.tokenizer=byte",
    "base.model={kind: llama, layers: 2, width: 16, heads: 1, context: 16}",
    "base.batch.tokens=64",
    "base.evaluation={every: 1.0, tokens: 64}",
)


def run(path: Path, tmp_path: Path, *more: str) -> set[str]:
    """The arms of a study that came to an end."""
    found = study(path, out=tmp_path / "study", overrides=[*SMALL, *more], quiet=True)
    assert found["contrasts"]
    return set(found["arms"])


def test_the_demo(tmp_path: Path) -> None:
    small = ("base.corpus.english.limit=40", "base.corpus.python.limit=40", "base.corpus.generated.options.count=40")
    tasks = ("base.feedback.problems.options.count=8", "base.tasks.problems.limit=2")
    arms = run(DEMO, tmp_path, "match=steps", *small, *tasks)
    assert arms >= {"plain", "designed-targets", "random-direction", "moved-mixture", "same-mixture"}


@pytest.mark.slow
def test_rivals(tmp_path: Path) -> None:
    small = ("products.learner.set.budget.steps=1", "base.tasks.backwards.limit=2", "base.tasks.forwards.limit=2")
    arms = run(BESIDE / "rivals.yaml", tmp_path, "match=steps", "base.feedback.backwards.limit=8", *small)
    assert arms >= {"plain", "designed-targets", "random-direction", "without-head", "oracle"}


@pytest.mark.slow
def test_three_arms(tmp_path: Path) -> None:
    assert run(BESIDE / "three-arms.yaml", tmp_path) >= {"plain"}
