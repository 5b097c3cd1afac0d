"""The Makefile's words for a machine that cannot make a virtual environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(repository: Path, folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(repository / name, folder / name)
    command = ["make", "demo", f"PYTHON={python}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def pretend(folder: Path, script: str) -> str:
    """A `python` that answers as the shell script says."""
    path = folder / "pretended-python"
    path.write_text(f'#!/bin/sh\n{script}\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "advice"),
    [
        # Debian's python3 without python3-venv: the module ensurepip is missing.
        ('case "$2" in *ensurepip*) echo "No module named ensurepip" >&2; exit 1;; esac', "apt install python3-venv"),
        ('case "$2" in *version_info*) exit 1;; esac', "older than Python 3.10"),
    ],
)
def test_one_line_says_what_to_install(repository: Path, tmp_path: Path, script: str, advice: str) -> None:
    done = make(repository, tmp_path, pretend(tmp_path, script))
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert len(said) == 1 and advice in said[0]
    assert not (tmp_path / ".venv").exists()


def test_without_python(repository: Path, tmp_path: Path) -> None:
    done = make(repository, tmp_path, "no-such-python")
    assert done.returncode != 0 and "There is no 'no-such-python' here" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr
