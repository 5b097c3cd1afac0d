"""A job is plain data, and whatever its function does becomes an outcome in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foretrain.studies.jobs import Job, Outcome, perform


@pytest.fixture(autouse=True)
def _samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "executors"))


@pytest.mark.parametrize("call", ["sample_jobs.who", "sample_jobs:", ":who", "a b:who", "os:system('ls')", "os.:x"])
def test_a_call_is_a_module_and_a_function(call: str) -> None:
    with pytest.raises(ValueError, match="should call 'module:function', not"):
        Job("x", call, {})


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"a": [{"b": Path("x")}]}, r"payload.a\[0\].b is a PosixPath"),
        ({"a": float("inf")}, "payload.a is inf"),
        ({"a": {3: 1}}, "payload.a has the key 3, which is no text"),
        ({"a": b"x"}, "payload.a is a bytes"),
    ],
)
def test_a_payload_that_json_would_change_is_named(payload: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=f"The job 'heavy, seed 3' cannot be sent: {words}"):
        Job("heavy, seed 3", "sample_jobs:who", payload)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("tensor", "result.figures[1].loss is a set"),
        ("nan", "result.loss is nan"),
        ("numbered", "result.values has the key 0, which is no text"),
        ("nothing", "result is a NoneType, not a dict"),
    ],
)
def test_a_result_that_is_no_plain_data_is_named(tmp_path: Path, call: str, words: str) -> None:
    outcome = perform(Job("x", f"sample_jobs:{call}", {}), tmp_path / "log")
    assert outcome.status == "failed" and outcome.result is None
    assert outcome.error == f"sample_jobs:{call} gave what is no plain data: {words}."


def test_a_function_that_is_not_there_is_a_fault_with_a_traceback(tmp_path: Path) -> None:
    for call, words in (("sample_jobs:absent", "AttributeError"), ("no_such_module:f", "ModuleNotFoundError")):
        outcome = perform(Job("x", call, {}), tmp_path / "logs" / "log")
        assert outcome.status == "failed" and outcome.error is not None and f"{call}: {words}" in outcome.error
    assert (tmp_path / "logs" / "log").read_text().count("Traceback") == 2


def test_plain_forms_go_both_ways() -> None:
    job = Job("x", "sample_jobs:who", {"a": [1, None]})
    assert Job(**job.plain()) == job
    outcome = Outcome(job, {"b": 1.5}, None, "done")
    assert Outcome(job, **outcome.plain()) == outcome
