"""Atomic files, disk faults in words, content hashes."""

from __future__ import annotations

import datetime
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from foretrain import faults
from foretrain.errors import CorruptFile, RunError
from foretrain.files import failed_write, free_bytes, read_json, show_bytes, write_atomic, write_json
from foretrain.hashing import hash_bytes, hash_data, hash_file, seed_from


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    faults.arm("")


def test_content_arrives_whole_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"
    write_json(path, {"é": [1, 0.1]})
    write_json(path, {"é": [2, 0.1]})
    assert read_json(path) == {"é": [2, 0.1]}
    assert os.listdir(path.parent) == ["plan.json"]


def test_a_full_disk_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomic(path, b"old")
    faults.arm("full-disk:1")
    with pytest.raises(RunError, match=r"plan\.json could not be written .*disk is full \(3 B needed"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["plan.json"]


def test_a_kill_while_writing_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomic(path, b"old")
    script = """
import sys
from pathlib import Path
from foretrain.files import write_atomic
write_atomic(Path(sys.argv[1]), b"new")
"""
    environment = {**os.environ, "FORETRAIN_FAULT": "write:1"}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment)
    assert done.returncode == -signal.SIGKILL and path.read_bytes() == b"old"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"plan\.json could not be written"):
        write_atomic(tmp_path / "file" / "plan.json", b"")


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"plan\.json is damaged"):
        read_json(tmp_path / "plan.json")


def test_bytes_for_people() -> None:
    assert [show_bytes(n) for n in (0, 999, 1000, 1_250_000, 3.2e9, 5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "3.2 GB",
        "5000.0 TB",
    ]


def test_free_space_of_a_folder_to_be_made(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
    error = failed_write("The model", tmp_path, OSError(errno.ENOSPC, "x"), needed=1500)
    assert "1.5 kB needed" in str(error) and "free" in str(error)
    assert "Permission denied" in str(
        failed_write("The model", tmp_path, PermissionError(errno.EACCES, "Permission denied"))
    )


def test_hashes_are_of_content(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    assert hash_file(tmp_path / "file") == hash_bytes(data) == hashlib.blake2b(data, digest_size=16).hexdigest()
    assert (
        hash_data({"b": 1, "a": [None, 0.1]})
        == hash_data({"a": [None, 0.1], "b": 1})
        != hash_data({"a": [None, 0.1], "b": 2})
    )
    assert hash_data({"day": datetime.date(2020, 1, 2), "path": Path("x")}) == hash_data(
        {"day": "2020-01-02", "path": "x"}
    )
    with pytest.raises(TypeError, match="plain data"):
        hash_data({"odd": object()})  # its text holds an address


def test_seeds_are_pure_and_apart() -> None:
    assert (
        seed_from(0, 5, "order") == 1158954070472264629
    )  # printf '[0,5,"order"]' | b2sum -l 64, little-endian, halved
    assert len({seed_from(0, 5), seed_from(5, 0), seed_from("0", 5), seed_from(0, "5"), seed_from(0, 5, "")}) == 5
    assert 0 <= seed_from(1) < 2**63
