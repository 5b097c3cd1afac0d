"""The command line: quick help, exit codes, words for people on stderr and JSON alone on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from foretrain import api, cli
from foretrain.errors import Interrupted, RequestError, RunError


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["foretrain", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    code = left.value.code
    return (code if isinstance(code, int) else 0), out, " ".join(err.replace("│", " ").split())


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: call(monkeypatch, capsys, *words)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, foretrain.cli; print({'torch', 'transformers', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"], ["data", "show", "--help"]])
def test_help(command: Any, words: list[str]) -> None:
    code, out, err = command(*words)
    assert code == 0 and "Usage" in out and err == ""


def test_version(command: Any) -> None:
    from foretrain import __version__

    assert command("--version")[:2] == (0, __version__ + "\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum", "x.yaml"], "Did you mean 'run'"),
        (["run"], "RECIPE"),
        (["run", "x.yaml", "--quit"], "--quiet"),
        (["run", "x.yaml", "--minutes", "soon"], "'--minutes': Input should be a valid number"),
        (["run", "x.yaml", "--minutes", "-1"], "greater than or equal to 0.1"),
        (["sample", "x", "--tokens", "0"], "greater than or equal to 1"),
        (["run", "no-such-recipe.yaml"], "no-such-recipe.yaml"),
        (["check", "no-such-recipe.yaml"], "no-such-recipe.yaml"),
        (["data", "show", "no-such-recipe.yaml"], "no-such-recipe.yaml"),
        (["parts", "cosin"], "there is no axis or kind 'cosin'; did you mean 'cosine'?"),
        (["ls", "no-such-folder"], "There is no folder no-such-folder"),
        (["report", "no-such-run"], "There is no run no-such-run"),
        (["export", "no-such-run"], "There is no run no-such-run"),
        (["export", "no-such-run", "--to", "gguf"], "there is one format, 'hf'"),
        (["sample", "no-such-run"], "There is no run no-such-run"),
        (["evaluate", "no-such-run"], "There is no run no-such-run"),
        (["compare", "no-such-run", "nor-this"], "There is no run no-such-run"),
    ],
)
def test_wrong_requests(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*words)
    assert code == 2, err
    assert said in err
    assert out == "" and "Traceback" not in err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (RequestError("the corpus is empty [b]"), 2, "error: the corpus is empty [b]"),
        (RunError("the loss is not finite"), 1, "error: the loss is not finite"),
        (Interrupted("stopped at step 7"), 3, "stopped at step 7"),
        (KeyboardInterrupt(), 3, "Interrupted"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "error: Permission denied: /x/y"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
    ],
)
def test_exit_codes(command: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, said: str) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(api, "run", fails)
    found, out, err = command("run", "x.yaml")
    assert (found, out) == (code, "")
    assert said in err and "Traceback" not in err


def test_a_fault_of_our_own_shows_where(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(api, "run", fails)
    code, _, err = command("run", "x.yaml")
    assert code == 1
    assert "Traceback" in err and "KeyError: 'surprise'" in err and "a fault of foretrain" in err


def test_options_reach_the_api(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Done:
        path = Path("runs/x")

        def result(self) -> dict[str, float]:
            return {"loss": float("nan")}

    def run(recipe: Path, **options: Any) -> Done:
        seen.update(options, recipe=recipe)
        return Done()

    monkeypatch.setattr(api, "run", run)
    changes = ["--set", "a.b=1", "--set", "c=2", "--minutes", "2.5", "--name", "n"]
    code, out, _ = command("run", "a.yaml", "--out", "o", *changes, "--from", "r@3", "--restart", "--json")
    assert code == 0
    assert json.loads(out) == {"path": "runs/x", "result": {"loss": None}}
    assert 0 <= time.time() - seen.pop("started") < 60
    assert seen == {
        "recipe": Path("a.yaml"),
        "out": Path("o"),
        "overrides": ["a.b=1", "c=2"],
        "minutes": 2.5,
        "start_from": "r@3",
        "restart": True,
        "name": "n",
        "quiet": True,
    }


def test_parts(command: Any) -> None:
    code, out, _ = command("parts", "schedule", "--json")
    found = {part["kind"]: part for part in json.loads(out)}
    assert code == 0 and set(found) >= {"constant", "cosine", "wsd"}
    warmup = next(field for field in found["cosine"]["fields"] if field["name"] == "warmup")
    assert (warmup["default"], warmup["bounds"], warmup["required"]) == (0.02, {"ge": 0.0}, False)
    assert "rise" in warmup["doc"]
    _, out, _ = command("parts", "cosine")
    assert "schedule cosine" in out and "warmup" in out
    _, out, _ = command("parts")
    assert "causal_lm" in out and "adamw" in out


def test_listing_into_a_closed_pipe() -> None:
    """`foretrain schema | head -c 10` ends quietly."""
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "foretrain", "schema"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    os.close(read)
    _, err = process.communicate(timeout=120)
    assert err == b""
