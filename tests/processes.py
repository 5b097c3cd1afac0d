"""Runs of tests in processes of their own: started, killed, resumed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from foretrain.hashing import hash_file
from foretrain.journal import read_journal


def write_recipe(folder: Path, data: dict[str, Any]) -> Path:
    """A recipe file in `folder`."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def start(arguments: list[str], *, processes: int = 1, **environment: str) -> subprocess.Popen[str]:
    """`foretrain ARGUMENTS` in a process of its own, or several under torchrun."""
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    )
    return _start([sys.executable, *launcher, "-m", "foretrain", *arguments], environment)


def start_python(script: str, arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """A script in a Python process of its own."""
    return _start([sys.executable, "-c", script, *arguments], environment)


def _start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    full = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=full)


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for a process, check its exit code, and give what it wrote to stderr."""
    try:
        out, error = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, f"exit code {process.returncode}, not {code}\n{out}\n{error}"
    return error


def lines_of_run(folder: Path, data: dict[str, Any], processes: int = 1) -> list[dict[str, Any]]:
    """The `metrics.jsonl` of a recipe that is run in `folder` (as `folder/run`), by one process or several."""
    recipe = write_recipe(folder, data)
    command = ["run", str(recipe), "--out", str(folder / "run")]
    finish(start(command, processes=processes, FORETRAIN_CACHE=str(folder / "cache")))
    return read_journal(folder / "run" / "metrics.jsonl")


def fingerprint(run: Path) -> tuple[bytes, str]:
    """What must be the same in two runs that are bit-identical: `metrics.jsonl` and the final weights."""
    return (run / "metrics.jsonl").read_bytes(), hash_file(run / "model" / "model.safetensors")
