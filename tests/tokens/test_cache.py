from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from foretrain.errors import RequestError, RunError
from foretrain.tokens import cache
from foretrain.tokens.cache import cache_folder, made_once


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORETRAIN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FORETRAIN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "foretrain"


def test_is_made_once_and_whole(tmp_path: Path) -> None:
    target, calls = tmp_path / "kind" / "name", []

    def make(folder: Path) -> None:
        calls.append(folder)
        assert not target.exists()
        (folder / "file").write_text("content")

    assert made_once(target, make) == made_once(target, make) == target
    assert len(calls) == 1 and (target / "file").read_text() == "content" and _visible(target.parent) == ["name"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RequestError("no")

    with pytest.raises(RequestError, match="no"):
        made_once(tmp_path / "name", fail)
    assert _visible(tmp_path) == []
    made_once(tmp_path / "name", lambda folder: None)


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".name.99999.tmp").mkdir()
    (tmp_path / ".other.99999.tmp").mkdir()
    made_once(tmp_path / "name", lambda folder: None)
    assert _visible(tmp_path) == [".other.99999.tmp", "name"]


def test_others_wait_for_the_first(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.2)

    threads = [threading.Thread(target=made_once, args=(tmp_path / "name", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from foretrain.tokens.cache import made_once\n"
        "made_once(Path(sys.argv[1]), lambda folder: os.kill(os.getpid(), 9))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "name")], check=False)
    assert done.returncode == -9 and len(_visible(tmp_path)) == 1
    made_once(tmp_path / "name", lambda folder: None)
    assert _visible(tmp_path) == ["name"]


def test_without_locks_the_first_to_finish_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    def make(folder: Path) -> None:
        (folder / "mine").write_text("")
        target.mkdir()  # another process finishes while this one works
        (target / "theirs").write_text("")

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    target = tmp_path / "name"
    (tmp_path / ".name.99999.tmp").mkdir()  # perhaps at work: not to be touched
    made_once(target, make)
    assert _visible(target) == ["theirs"] and _visible(tmp_path) == [".name.99999.tmp", "name"]


def test_no_place_for_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot be written.*FORETRAIN_CACHE"):
        made_once(tmp_path / "file" / "name", lambda folder: None)


def test_a_full_disk(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="disk is full"):
        made_once(tmp_path / "name", full)
    assert _visible(tmp_path) == []
