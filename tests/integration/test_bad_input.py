"""Whatever is wrong with what a run is given: one paragraph that names it, the right exit code, and nothing lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

import foretrain as ft
from foretrain import faults
from foretrain.batch import Batch
from foretrain.checkpoints import checkpointer
from foretrain.errors import CorruptFile, RequestError, RunError
from foretrain.journal import read_journal
from foretrain.parts import Facts
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from foretrain.steering.base import Steering
from tests.processes import fingerprint, write_recipe
from tests.tasks.subjects import byte_tokenizer, model, write_items
from tests.tiny import tiny_data

TEXTS = [f"text number {n} with some words in it, so that windows fill up" for n in range(80)]


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    faults.arm("")


def go(out: Path, **changes: Any) -> RunDirectory:
    return ft.run(make_recipe(tiny_data(**changes)), out=out, quiet=True)


def corpus(path: Path | str, **settings: Any) -> dict[str, Any]:
    return {"corpus": {"mine": {"path": str(path), "validation": 0.1, **settings}}}


def jsonl(path: Path, texts: list[str] = TEXTS) -> Path:
    return Path(write_items(path, [{"text": text} for text in texts]))


def refused(tmp_path: Path, said: str, **changes: Any) -> str:
    """The message of a request that is refused before anything of a run is written."""
    with pytest.raises(RequestError, match=said) as caught:
        go(tmp_path / "run", **changes)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    text = str(caught.value)
    assert "\n\n" not in text and "Traceback" not in text
    return text


# The recipe --------------------------------------------------------------------------------------------------------


def test_a_missing_recipe(tmp_path: Path) -> None:
    for name in ("none.yaml", "none.txt"):
        with pytest.raises(RequestError, match=f"There is no file .*{name}"):
            ft.run(tmp_path / name, out=tmp_path / "run")


def test_misspelt_keys_name_the_nearest(tmp_path: Path) -> None:
    data = tiny_data(optimiser={"lr": 1e-3}, batch={"token": 256})
    with pytest.raises(RequestError) as caught:
        ft.run(write_recipe(tmp_path, data), out=tmp_path / "run")
    assert "there is no key 'optimiser'; did you mean 'optimizer'?" in str(caught.value)
    assert "batch: there is no key 'token'; did you mean 'tokens'?" in str(caught.value)
    with pytest.raises(RequestError, match=r"checkpoint.*there is no key 'evry'; did you mean 'every'"):
        ft.run(write_recipe(tmp_path, tiny_data()), out=tmp_path / "run", overrides=["checkpoint.evry=3"])


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: x\nbudget: {steps: 3\n")
    with pytest.raises(RequestError, match=r"r\.yaml is not valid YAML: line \d"):
        ft.run(path, out=tmp_path / "run")
    with pytest.raises(RequestError, match="is not valid YAML"):
        ft.evaluate(go(tmp_path / "run", budget={"steps": 1}), tasks=path)
    with pytest.raises(RequestError, match=r"tasks\.yaml cannot be read: No such file"):
        ft.evaluate(tmp_path / "run", tasks=tmp_path / "tasks.yaml")


def test_weights_that_sum_to_zero() -> None:
    with pytest.raises(RequestError, match="the weights of all domains sum to zero"):
        make_recipe(tiny_data(**corpus("builtin:lego", weight=0)))


# The corpus --------------------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    assert "nowhere.jsonl" in refused(tmp_path, "mine|nowhere", **corpus(tmp_path / "nowhere.jsonl"))


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n{"text": "  "}\n'])
def test_an_empty_corpus(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content)
    assert "empty.jsonl" in refused(tmp_path, "holds no documents", **corpus(path))


def test_a_malformed_line_is_named_with_its_number(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl")
    lines = path.read_text().splitlines()
    lines[41] = lines[41][:-1]
    path.write_text("\n".join(lines))
    refused(tmp_path, r"c\.jsonl, line 42", **corpus(path))


def test_a_missing_field_names_those_there_are(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl")
    refused(tmp_path, r"c\.jsonl, line 1: there is no field 'txt'; .* Did you mean 'text'", **corpus(path, text="txt"))


def test_invalid_utf8_is_counted_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(("\n\n".join(TEXTS) + "\n").encode() + b"caf\xe9 and \xff\xfe more of it\n")
    assert "c.txt" in refused(tmp_path, r"line \d+: the text is not valid UTF-8", **corpus(path, invalid="error"))
    run = go(tmp_path / "run", budget={"steps": 1}, **corpus(path, validation=0))
    assert run.plan()["reports"]["mine"]["replaced"] == 3
    assert any("3 invalid UTF-8 sequences were replaced" in note for note in run.plan()["notes"])


def test_an_unknown_builtin_and_its_options(tmp_path: Path) -> None:
    refused(tmp_path, "did you mean 'english'", **corpus("builtin:englisch"))
    refused(tmp_path, "did you mean 'count'", **corpus("builtin:lego", options={"cont": 3}))


def test_items_of_a_task_in_the_corpus(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl")
    items = jsonl(tmp_path / "items.jsonl", TEXTS[7:8])
    task = {"leak": {"kind": "completion_loss", "path": str(items)}}
    assert "leak" in refused(tmp_path, "`overlap: warn`", **corpus(path), tasks=task)
    assert "leak" in refused(tmp_path, "`overlap: warn`", **corpus(path), feedback={"leak": {"path": str(items)}})
    run = go(tmp_path / "run", **corpus(path), tasks=task, overlap="warn", budget={"steps": 1})
    assert any("leak" in note for note in run.plan()["notes"])


def test_a_corrupt_shard_is_named_and_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path / "cache"))
    changes = corpus(jsonl(tmp_path / "c.jsonl"))
    ft.check(make_recipe(tiny_data(**changes)))
    shard = max((tmp_path / "cache").rglob("*.shard"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(CorruptFile, match=shard.name) as caught:
        go(tmp_path / "run", **changes)
    assert caught.value.exit_code == 1 and str(shard) in str(caught.value)


# The model ---------------------------------------------------------------------------------------------------------


def test_a_tokenizer_or_context_that_does_not_fit_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    model(context=48).save_pretrained(folder)
    byte_tokenizer().save(folder)
    own = {"kind": "pretrained", "path": str(folder)}
    refused(tmp_path, "The tokenizer does not fit the model", model=own, tokenizer={"kind": "bpe", "vocabulary": 600})
    refused(tmp_path, r"model\.context: 64 tokens are more than the 48", model={**own, "context": 64}, tokenizer=None)
    refused(tmp_path, r"model\.path: there is no folder", model={**own, "path": "./none"}, tokenizer=None)
    run = go(tmp_path / "run", model=own, tokenizer=None, batch={"tokens": 192}, budget={"steps": 2})
    assert run.plan()["model"]["context"] == 48


# The run -----------------------------------------------------------------------------------------------------------


class TryPoison(Steering):
    """Makes the losses of some steps not-a-number."""

    kind: Literal["try_poison"] = "try_poison"
    facts: ClassVar[Facts] = Facts(answers="does a run survive a bad step?")
    steps: list[int] = []
    """Which steps."""

    def weigh(self, losses: Tensor, batch: Batch) -> Tensor:
        return torch.full_like(losses, math.nan if batch.step in self.steps else 1.0)


def test_bad_steps_are_skipped_counted_and_change_nothing(tmp_path: Path) -> None:
    run = go(tmp_path / "run", steering=[{"kind": "try_poison", "steps": [2, 3, 7]}], stability={"patience": 3})
    lines = [line for line in run.metrics() if "lr" in line]
    assert [line["step"] for line in lines if line.get("skipped") == "non-finite"] == [3, 4, 8]
    result = run.result()
    assert result is not None and result["skipped"] == 3 and result["status"] == "done"
    # A skipped step leaves the weights alone: with the rate of nothing but the first two, the third is as after them.
    never = go(tmp_path / "never", steering=[{"kind": "try_poison", "steps": list(range(8))}])
    before, after = ([line for line in never.metrics() if "validation/loss" in line][i] for i in (0, -1))
    assert before["validation/loss"] == after["validation/loss"]
    assert never.result()["skipped"] == 8  # type: ignore[index]


def test_a_run_that_is_lost_stops_with_words_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "steering": [{"kind": "try_poison", "steps": [5, 6, 7, 8, 9]}],
        "stability": {"patience": 3},
        "budget": {"steps": 12},
        "checkpoint": {"every": 2, "keep": 9},
    }
    with pytest.raises(RunError, match=r"stopped at step 7: 3 bad steps in a row.*--from RUN@step") as caught:
        go(tmp_path / "run", **changes)
    assert caught.value.exit_code == 1
    run = RunDirectory(tmp_path / "run")
    assert run.status() == "failed" and "3 bad steps in a row" in run.result()["error"]  # type: ignore[index]
    assert [folder.name for folder in run.checkpoints()] == ["step-00000002", "step-00000004", "step-00000006"]
    assert run.report_path.is_file()
    # What the message offers: start before it, with something changed.
    cure = make_recipe(tiny_data(budget={"steps": 4}))
    assert ft.run(cure, out=tmp_path / "cure", start_from=f"{run.path}@4", quiet=True).status() == "done"


def test_a_rate_that_blows_up_ends_with_figures_and_not_with_a_traceback(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": {"lr": 1e9}, "schedule": {"kind": "constant", "warmup": 0}}
    try:
        run = go(tmp_path / "run", **changes, budget={"steps": 12}, stability={"patience": 100, "clip": None})
    except RunError as error:
        assert "bad steps" in str(error)
        run = RunDirectory(tmp_path / "run")
    result = json.loads(run.result_path.read_text())
    assert result["status"] in ("done", "failed") and run.report_path.is_file()


def test_a_result_that_is_not_finite_is_written_as_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretrain.evaluation import Validation

    bad = {"validation/prose/loss": math.inf, "validation/prose/bits_per_byte": math.nan, "validation/loss": math.inf}
    monkeypatch.setattr(Validation, "measure", lambda *given: bad)
    run = go(tmp_path / "run", budget={"steps": 1})
    assert json.loads(run.result_path.read_text())["validation"] == {
        "prose/loss": None,
        "prose/bits_per_byte": None,
        "loss": None,
    }
    assert "| validation loss | inf | |" in (run.model_path / "README.md").read_text()


FULL: dict[str, Any] = {"budget": {"steps": 8}, "checkpoint": {"every": 2, "keep": 9}}


def test_a_full_disk_is_said_loses_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    faults.arm("full-disk:1000000")  # only to count what is written
    whole = go(tmp_path / "whole", **FULL)
    last = faults._reached["write"]
    hit = set()
    for write in (1, 4, last // 4, last // 2, last - 8, last - 2, last - 1, last):
        faults.arm(f"full-disk:{write}")
        with pytest.raises(RunError, match="the disk is full") as caught:
            go(tmp_path / f"run{write}", **FULL)
        assert caught.value.exit_code == 1 and "Make room and run the same command again" in str(caught.value)
        faults.arm("")
        run = RunDirectory(tmp_path / f"run{write}")
        hit.add(len(run.checkpoints()))
        assert run.result() is None or write == last, "all but the report"
        read_journal(run.metrics_path)
        assert fingerprint(go(run.path, **FULL).path) == fingerprint(whole.path)
        assert run.status() == "done" and run.report_path.is_file()
    assert len(hit) > 2, "the disk was full before, between and after checkpoints"


def test_no_room_for_a_checkpoint_leaves_a_failed_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(tmp_path / "whole", **FULL)
    room = [10**12, 10**12, 1000]
    with monkeypatch.context() as patch:
        patch.setattr(checkpointer, "free_bytes", lambda folder: room.pop(0))
        with pytest.raises(RunError, match=r"The checkpoint of step 6 could not be written .* the disk is full"):
            go(tmp_path / "run", **FULL)
    run = RunDirectory(tmp_path / "run")
    result = run.result()
    assert result is not None and result["status"] == "failed" and "checkpoint of step 6" in result["error"]
    assert [folder.name for folder in run.checkpoints()] == ["step-00000002", "step-00000004"]
    assert fingerprint(go(run.path, **FULL).path) == fingerprint(whole.path)
    assert run.status() == "done"


def test_out_of_memory_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretrain.trainer import Trainer

    def full(self: Trainer) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Trainer, "train_step", full)
    with pytest.raises(RunError, match=r"A smaller batch\.micro needs less"):
        go(tmp_path / "run")
    assert RunDirectory(tmp_path / "run").status() == "failed"


def test_two_commands_on_one_run(tmp_path: Path) -> None:
    from foretrain.lock import RunLock

    (tmp_path / "run").mkdir()
    with RunLock(tmp_path / "run"), pytest.raises(RequestError, match="is being written by process"):
        go(tmp_path / "run")
