"""Branching off a run, extending a finished one, and what is refused: other recipes, other data, other models."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import foretrain as ft
from foretrain.checkpoints import Checkpointer
from foretrain.errors import RequestError
from foretrain.hashing import hash_file
from foretrain.journal import read_journal
from foretrain.recipe import make_recipe
from foretrain.run_directory import RunDirectory
from tests.processes import fingerprint, finish, start, write_recipe
from tests.tiny import tiny_data, tiny_recipe

DATA: dict[str, Any] = tiny_data(
    budget={"steps": 8},
    checkpoint={"every": 4, "keep": 10},
    tokenizer={"kind": "bpe", "vocabulary": 400},
    optimizer={"kind": "adamw", "lr": 0.01},
    schedule={"kind": "cosine", "warmup": 2},
)


def go(out: Path, data: dict[str, Any] | None = None, **arguments: Any) -> RunDirectory:
    return ft.run(make_recipe(data or DATA), out=out, quiet=True, **arguments)


def changed(**changes: Any) -> dict[str, Any]:
    return {**DATA, **changes}


def rates(run: RunDirectory) -> list[float]:
    return [line["lr"] for line in run.metrics() if "lr" in line]


def steps(run: RunDirectory) -> list[int]:
    return [line["step"] for line in run.metrics() if "lr" in line]


def checkpoint(run: RunDirectory, step: int) -> dict[str, Any]:
    return dict(Checkpointer(run.checkpoints_path, owner=False).load(step))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return go(tmp_path_factory.mktemp("parent") / "parent")


@pytest.fixture
def own(parent: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the finished run, to be changed."""
    shutil.copytree(parent.path, tmp_path / "own")
    return RunDirectory(tmp_path / "own")


# Branching ---------------------------------------------------------------------------------------------------------


def test_a_branch_begins_with_the_weights_and_the_state_of_its_parent(
    parent: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A learning rate of nearly nothing: the weights stay where they began.
    still = changed(optimizer={"kind": "adamw", "lr": 1e-30, "weight_decay": 0}, budget={"steps": 1})
    for at, step in (("", 8), ("@4", 4)):
        branch = ft.run(make_recipe(still), out=tmp_path / f"b{step}", start_from=f"{parent.path}{at}")
        error = capsys.readouterr().err
        assert f"starting from tiny at step {step}; the learning rate warms up again" in " ".join(error.split())
        before, after = checkpoint(parent, step), checkpoint(branch, 1)
        assert all(torch.equal(tensor, before["model"][name]) for name, tensor in after["model"].items())
        # AdamW's count of steps goes on, so its moments came along.
        assert {float(state["step"]) for state in after["optimizer"]["state"].values()} == {step + 1.0}
        assert branch.plan()["parent"] == {"run": str(parent.path.resolve()), "step": step, "name": "tiny"}
        assert branch.plan()["hashes"]["tokenizer"] == parent.plan()["hashes"]["tokenizer"]


def test_a_branch_warms_up_again_and_goes_on_in_the_text(parent: RunDirectory, tmp_path: Path) -> None:
    branch = go(tmp_path / "branch", start_from=str(parent.path))
    assert rates(branch) == rates(parent) and rates(branch)[0] == pytest.approx(0.005)
    before, after = checkpoint(parent, 8)["parts"]["stream"], checkpoint(branch, 8)["parts"]["stream"]
    assert sum(before["counters"].values()) == 64
    assert sum(after["counters"].values()) == 128
    assert branch.result()["loss"] < parent.result()["loss"]  # type: ignore[index]


def test_only_the_same_text_goes_on_where_it_stood(parent: RunDirectory, tmp_path: Path) -> None:
    other = {"path": "builtin:arithmetic", "options": {"count": 130, "seed": 5}, "validation": 0.2}
    data = changed(corpus={"prose": DATA["corpus"]["prose"], "sums": other}, budget={"steps": 1})
    branch = go(tmp_path / "branch", data, start_from=str(parent.path))
    before, after = checkpoint(parent, 8)["parts"]["stream"], checkpoint(branch, 1)["parts"]["stream"]
    new = after["counters"]["prose"] - before["counters"]["prose"]
    assert 0 < new < 8 and after["counters"]["sums"] == 8 - new
    again = go(tmp_path / "seed", changed(seed=1, budget={"steps": 1}), start_from=str(parent.path))
    assert sum(checkpoint(again, 1)["parts"]["stream"]["counters"].values()) == 8


def test_a_branch_reads_with_the_tokenizer_of_its_parent(parent: RunDirectory, tmp_path: Path) -> None:
    corpus = {"new": {"path": "builtin:lego", "options": {"count": 300}, "validation": 0.1}}
    alone = go(tmp_path / "alone", changed(corpus=corpus, budget={"steps": 1}))
    branch = go(tmp_path / "branch", changed(corpus=corpus, budget={"steps": 1}), start_from=str(parent.path))
    assert alone.plan()["hashes"]["tokenizer"] != parent.plan()["hashes"]["tokenizer"]
    assert branch.plan()["hashes"]["tokenizer"] == parent.plan()["hashes"]["tokenizer"]
    assert hash_file(branch.tokenizer_path / "tokenizer.json") == hash_file(parent.tokenizer_path / "tokenizer.json")


def test_another_kind_of_optimizer_starts_anew_and_it_is_said(
    parent: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = changed(optimizer={"kind": "muon", "lr": 0.01}, budget={"steps": 2})
    ft.run(make_recipe(data), out=tmp_path / "branch", start_from=str(parent.path))
    assert "its state starts anew" in " ".join(capsys.readouterr().err.split())


def test_a_branch_may_leave_its_model_to_its_parent(parent: RunDirectory, tmp_path: Path) -> None:
    data = {key: value for key, value in changed(budget={"steps": 1}).items() if key != "model"}
    path = write_recipe(tmp_path, data)
    branch = ft.run(path, out=tmp_path / "branch", start_from=str(parent.path), quiet=True)
    assert branch.recipe()["model"] == parent.recipe()["model"]
    path.write_text("budget: {steps: 1\n")
    with pytest.raises(RequestError, match=r"recipe.yaml is not valid YAML: line \d"):
        ft.run(path, out=tmp_path / "other", start_from=str(parent.path), quiet=True)


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("@5", r"there is no checkpoint of step '5'.*(there are: 4, 8|did you mean)"),
        ("@x", "after @ stands a step"),
        ("-and-more", r"There is no run .*Did you mean .*parent\?"),
    ],
)
def test_there_is_no_such_parent(parent: RunDirectory, tmp_path: Path, at: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        go(tmp_path / "branch", start_from=f"{parent.path}{at}")
    assert caught.value.exit_code == 2


def test_another_model_is_refused_in_words_and_leaves_no_run(parent: RunDirectory, tmp_path: Path) -> None:
    for key, value in (("width", 64), ("layers", 3)):
        with pytest.raises(RequestError, match=r"those of another model.*Write `model`") as caught:
            go(tmp_path / "branch", changed(model={**DATA["model"], key: value}), start_from=str(parent.path))
        assert "model.layers" in str(caught.value) or "embed_tokens" in str(caught.value)
        assert not (tmp_path / "branch" / "recipe.yaml").exists()
    go(tmp_path / "branch", changed(budget={"steps": 1}), start_from=str(parent.path))


def test_a_branch_is_resumed_without_its_parent(own: RunDirectory, tmp_path: Path) -> None:
    data = changed(budget={"steps": 6}, checkpoint={"every": 2, "keep": 9})
    whole = go(tmp_path / "whole", data, start_from=str(own.path))
    cut = go(tmp_path / "cut", data, start_from=str(own.path))
    _undo_the_end(cut, 4)
    with pytest.raises(RequestError, match=r"holds a run that began from .*own at step 8; it goes on without `--from`"):
        go(cut.path, data, start_from=f"{own.path}@4")
    shutil.rmtree(own.path)
    go(cut.path, data)
    assert fingerprint(cut.path) == fingerprint(whole.path)
    assert cut.plan()["parent"] == whole.plan()["parent"]
    with pytest.raises(RequestError, match="There is no run"):
        go(cut.path, data, start_from=str(own.path))


def test_a_run_of_its_own_is_no_branch_afterwards(own: RunDirectory, parent: RunDirectory) -> None:
    with pytest.raises(RequestError, match="holds a run that began from new weights"):
        go(own.path, start_from=str(parent.path))


def _undo_the_end(run: RunDirectory, step: int) -> None:
    """Leave a run as if it had been killed some time after the checkpoint of a step."""
    for folder in run.checkpoints():
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    shutil.rmtree(run.model_path)
    run.result_path.unlink()


# Extending ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_extended_by_a_larger_budget(
    own: RunDirectory, parent: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    ft.run(make_recipe(DATA), out=own.path, overrides=["budget.steps=14"])
    error = " ".join(capsys.readouterr().err.split())
    assert "extending a finished run at step 8; the learning rate warms up again" in error
    assert steps(own) == list(range(1, 15))
    assert own.metrics()[: len(parent.metrics())] == parent.metrics()
    # Six more steps: two of warm-up, and a cosine of their own.
    expected = [0.005, 0.01]
    assert rates(own)[8:10] == pytest.approx(expected) and rates(own)[10] == pytest.approx(0.01)
    assert rates(own)[13] < 0.004
    result = own.result()
    assert result is not None and result["cost"]["steps"] == 14 and result["status"] == "done"
    assert result["cost"]["tokens"] == 14 * 256
    assert result["cost"]["seconds"] > parent.result()["cost"]["seconds"]  # type: ignore[index]
    plan = own.plan()
    assert (plan["start"], plan["total_steps"]) == (8, 14)
    assert own.recipe()["budget"]["steps"] == 14
    # And once more.
    go(own.path, changed(budget={"steps": 16}))
    assert steps(own) == list(range(1, 17)) and own.plan()["start"] == 14


def test_an_extension_that_is_killed_is_resumed_exactly(
    own: RunDirectory, parent: RunDirectory, tmp_path: Path
) -> None:
    shutil.copytree(parent.path, tmp_path / "whole")
    whole = go(tmp_path / "whole", changed(budget={"steps": 15}))
    path = write_recipe(tmp_path, DATA)
    arguments = ["run", str(path), "--out", str(own.path), "--set", "budget.steps=15"]
    finish(start(arguments, FORETRAIN_FAULT="mid-step:6"), code=-signal.SIGKILL)
    assert own.result() is None and own.status() == "interrupted"
    go(own.path, changed(budget={"steps": 15}))
    assert fingerprint(own.path) == fingerprint(whole.path)
    assert own.plan()["start"] == 8


@pytest.mark.parametrize("file", ["environment.json", "plan.json", "recipe.yaml", "result"])
def test_an_extension_cut_off_while_it_is_written_down_begins_again(
    file: str, own: RunDirectory, parent: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends right after one of the files of the new plan was written, or before the old result goes."""
    from foretrain import execution

    class Killed(BaseException):
        pass

    def then_killed(write: Any) -> Any:
        def written(path: Path, value: Any) -> None:
            write(path, value)
            if path.name == file:
                raise Killed

        return written

    really = Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.name == "result.json":
            raise Killed
        really(self, missing_ok)

    data = changed(budget={"steps": 12})
    with monkeypatch.context() as patch:
        if file == "result":
            patch.setattr(Path, "unlink", unlink)
        else:
            patch.setattr(execution, "write_json", then_killed(execution.write_json))
            patch.setattr(execution, "write_atomic", then_killed(execution.write_atomic))
        with pytest.raises(Killed):
            go(own.path, data)
    go(own.path, data)
    shutil.copytree(parent.path, tmp_path / "whole")
    assert fingerprint(own.path) == fingerprint(go(tmp_path / "whole", data).path)
    assert own.plan()["start"] == 8


@pytest.mark.parametrize("file", ["environment.json", "plan.json", "recipe.yaml"])
def test_a_first_start_cut_off_while_it_is_written_down_begins_again(
    file: str, parent: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foretrain import execution

    class Killed(BaseException):
        pass

    def then_killed(write: Any) -> Any:
        def written(path: Path, value: Any) -> None:
            write(path, value)
            if path.name == file:
                raise Killed

        return written

    with monkeypatch.context() as patch:
        patch.setattr(execution, "write_json", then_killed(execution.write_json))
        patch.setattr(execution, "write_atomic", then_killed(execution.write_atomic))
        with pytest.raises(Killed):
            go(tmp_path / "run")
    assert fingerprint(go(tmp_path / "run").path) == fingerprint(parent.path)


def test_a_budget_that_is_no_larger_is_refused(own: RunDirectory) -> None:
    before = fingerprint(own.path)
    for budget in ({"steps": 5}, {"tokens": 8 * 256 - 256}, {"flops": 1e8}):
        with pytest.raises(RequestError, match="has done 8 steps; a budget that extends it should be larger"):
            go(own.path, changed(budget=budget))
    with pytest.raises(RequestError, match="has done 8 steps"):
        go(own.path, changed(schedule={"kind": "constant"}))
    assert fingerprint(own.path) == before and own.status() == "done"


def test_a_finished_run_with_nothing_new_to_do_says_so(own: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    before = own.result_path.stat().st_mtime_ns
    ft.run(make_recipe(DATA), out=own.path)
    assert "is done; nothing to do (`--restart` runs it again)" in " ".join(capsys.readouterr().err.split())
    assert own.result_path.stat().st_mtime_ns == before
    # What changes nothing that is computed may change.
    ft.run(make_recipe(DATA), out=own.path, overrides=["checkpoint.keep=3"], quiet=True)
    assert own.result_path.stat().st_mtime_ns == before


# Refusing ----------------------------------------------------------------------------------------------------------


def test_another_recipe_is_refused_with_the_keys_that_differ(own: RunDirectory) -> None:
    _undo_the_end(own, 4)
    data = changed(seed=3, optimizer={"kind": "adamw", "lr": 0.02}, budget={"steps": 9})
    with pytest.raises(RequestError) as caught:
        go(own.path, data)
    text = str(caught.value)
    assert "seed was 0 and is 3" in text and "optimizer.lr was 0.01 and is 0.02" in text
    assert "budget.steps was 8 and is 9" in text and "--restart" in text
    assert "model" not in text.replace(str(own.path), "")
    go(own.path, changed(checkpoint={"every": 2, "keep": 1}))
    assert own.status() == "done"


def test_a_finished_run_keeps_its_model_data_and_optimizer(own: RunDirectory) -> None:
    with pytest.raises(RequestError, match=r"differs.*: optimizer\.lr was 0\.01 and is 0\.02\."):
        go(own.path, changed(optimizer={"kind": "adamw", "lr": 0.02}, budget={"steps": 20}))


def test_restart_forgets_what_was_there(own: RunDirectory) -> None:
    (own.path / "notes.md").write_text("mine")
    run = go(own.path, changed(seed=3, budget={"steps": 2}), restart=True)
    assert steps(run) == [1, 2] and run.plan()["start"] == 0
    assert [folder.name for folder in run.checkpoints()] == ["step-00000002"]
    assert (own.path / "notes.md").exists()


def test_changed_data_is_refused_with_the_domain(tmp_path: Path) -> None:
    texts = [f"text number {n} with some words in it" for n in range(60)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = {"steady": DATA["corpus"]["prose"], "moving": {"path": str(path), "validation": 0.2}}
    data = changed(corpus=corpus, tokenizer="byte", budget={"steps": 4}, checkpoint={"every": 2, "keep": 3})
    run = go(tmp_path / "run", data)
    _undo_the_end(run, 2)
    path.write_text("".join(json.dumps({"text": text + "!"}) + "\n" for text in texts))
    with pytest.raises(RequestError, match=r"data of .* changed since it was started \(domain moving\)"):
        go(run.path, data)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert go(run.path, data).status() == "done"


def test_the_loss_of_the_result_is_there_also_after_a_kill_at_the_very_end(own: RunDirectory) -> None:
    loss = own.result()["loss"]  # type: ignore[index]
    shutil.rmtree(own.model_path)
    own.result_path.unlink()
    run = go(own.path)
    assert run.result()["loss"] == loss == read_journal(run.metrics_path)[-2]["loss"]  # type: ignore[index]


def test_recipes_may_be_named_objects_or_files(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, changed(budget={"steps": 2}))
    a = ft.run(path, out=tmp_path / "a", quiet=True)
    b = ft.run(str(path), out=str(tmp_path / "b"), overrides=["budget.steps=2"], quiet=True)
    c = ft.run(
        tiny_recipe(**changed(budget={"steps": 5})), out=tmp_path / "c", overrides=["budget.steps=2"], quiet=True
    )
    assert fingerprint(a.path) == fingerprint(b.path) == fingerprint(c.path)
