"""What is told of the machine and the code, and the memory in use."""

from __future__ import annotations

import json
import mmap
import os
import platform
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import foretrain
from foretrain.environment import _own_commit, describe, peak_memory, resident_memory


def test_it_says_what_numbers_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    found = describe()
    text = json.dumps(found, allow_nan=False)
    assert found["foretrain"] == foretrain.__version__ and found["python"] == platform.python_version()
    assert found["packages"]["torch"] == torch.__version__ and found["packages"]["numpy"] == np.__version__
    assert found["threads"]["intra_op"] == torch.get_num_threads()
    assert (
        found["cpu"]["cores"] == os.cpu_count()
        and found["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()
    )
    assert found["variables"]["MKL_CBWR"] == "COMPATIBLE" and "SECRET_TOKEN" not in text
    assert socket.gethostname() not in text and str(Path.home()) not in text
    assert found["memory"] > 1e8
    assert json.dumps(describe(), allow_nan=False) == text  # nothing in it changes from call to call


def test_it_is_quick() -> None:
    describe()
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        describe()
        best = min(best, time.perf_counter() - begin)
    assert best < 0.2  # about 25 ms; the slack is for busy machines


def test_the_users_commit_and_whether_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe()["working_directory"] is None
    git("init", "-q")
    assert describe()["working_directory"] is None  # no commit yet
    (tmp_path / "recipe.yaml").write_text("seed: 0\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "untracked").touch()
    commit = git("rev-parse", "HEAD").strip()
    assert describe()["working_directory"] == {"commit": commit, "changed": False}
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    assert describe()["working_directory"] == {"commit": commit, "changed": True}


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    _own_commit.cache_clear()
    found = describe()
    _own_commit.cache_clear()
    assert found["commit"] is None and found["working_directory"] is None


def test_memory_is_measured_in_bytes() -> None:
    size = 200 << 20
    before = resident_memory()
    # Mapped and written page by page: an allocator that was told to keep what is freed (kernels.process) has no part
    # in it.
    mapped = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        mapped[page] = 1
    during = resident_memory()
    assert size * 0.9 < during - before < size * 1.5
    assert peak_memory() >= during * 0.99
    mapped.close()
    assert resident_memory() < during - size * 0.5 and peak_memory() >= during * 0.99
