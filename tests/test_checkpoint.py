"""Checkpoints: exact round trips, atomic writes, damage found and named, the right ones kept."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from foretrain import faults
from foretrain.checkpoints import Checkpointer, list_steps, read_checkpoint, read_manifest, step_folder
from foretrain.checkpoints import folder as folder_module
from foretrain.checkpoints.tensors import DTYPES, plan_files
from foretrain.checkpoints.tree import decode, encode
from foretrain.errors import CorruptFile, RequestError, RunError


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    faults.arm("")


def same(left: Any, right: Any) -> bool:
    """Equal in type, structure and every bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Tensor):
        bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (left, right)]
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(*bits)
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def saved(folder: Path, step: int, tree: Any, **options: Any) -> Checkpointer:
    checkpointer = Checkpointer(folder, **options)
    checkpointer.save(step, tree)
    checkpointer.wait()
    return checkpointer


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


# Round trips --------------------------------------------------------------------------------------------------------

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(max_size=8),
    st.floats(width=32).map(np.float32),
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
)
tensors = st.builds(
    lambda dtype, shape, seed: (
        torch.randint(0, 2, (*shape, dtype.itemsize), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        .view(dtype)
        .reshape(shape)
    ),
    st.sampled_from(list(DTYPES)),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 99),
)
keys = st.one_of(st.text(max_size=4), st.integers(), st.none(), st.tuples(st.integers(), st.text(max_size=2)))
trees = st.recursive(
    plain | tensors,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(st.sampled_from(["!tensor", "!dict", "a/b", "a", "b", "__metadata__"]), inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(trees)
def test_a_tree_survives_json_bit_for_bit(tree: Any) -> None:
    structure, found = encode(tree)
    assert same(decode(json.loads(json.dumps(structure)), found), tree)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees)
def test_a_tree_survives_the_disk_bit_for_bit(tmp_path: Path, tree: Any) -> None:
    folder = tmp_path / "checkpoints"
    shutil.rmtree(folder, ignore_errors=True)
    with saved(folder, 7, tree, largest=16) as checkpointer:
        found = checkpointer.load_newest()
    assert found is not None and found[0] == 7
    assert same(found[1], tree)


def test_every_awkward_value(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    nan = struct.unpack(">d", bytes.fromhex("7ff800000000beef"))[0]
    tree = {
        3: "int key",
        ("a", 1): -0.0,
        "odd": [nan, math.inf, -math.inf, 0.1 + 0.2, 2**200, 5e-324],
        "transposed": base.T,
        "slice": base[:, 1::2],
        "bf16": torch.tensor([1.5, float("nan"), float("-inf")], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)).detach(),
        "view": torch.tensor([1 + 2j], dtype=torch.complex64).conj().resolve_conj(),
        "numpy": np.arange(6)[::-1],
        "zero-d": np.array(2.5),
        "generator": np.random.Generator(np.random.PCG64(1)).bit_generator.state,
        "mersenne": random.Random(0).getstate(),
        "surrogate": "\ud800",
        "bytes": b"\x00\xff",
    }
    with saved(tmp_path, 1, tree) as checkpointer:
        assert same(checkpointer.load(1), tree)


def test_one_tensor_in_two_places_stays_one(tmp_path: Path) -> None:
    weight = torch.randn(5, 3)
    tree = {"embedding": weight, "head": weight.view(5, 3), "transposed": weight.T, "part": weight[1:]}
    with saved(tmp_path, 1, tree) as checkpointer:
        found = checkpointer.load(1)
    assert found["embedding"] is found["head"]
    assert found["transposed"] is not found["head"]
    assert same(found, tree)


def test_optimizer_and_generator_states(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(5)
    tree = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
    with saved(tmp_path, 1, tree) as checkpointer:
        found = checkpointer.load(1)
    assert same(found["optimizer"], tree["optimizer"])
    assert list(found["optimizer"]["state"]) == [0, 1]
    assert same(found["model"], dict(tree["model"]))
    optimizer.load_state_dict(found["optimizer"])
    expected = torch.rand(3, generator=generator)
    other = torch.Generator()
    other.set_state(found["generator"])
    assert torch.equal(torch.rand(3, generator=other), expected)


@pytest.mark.parametrize(
    "odd", [{1}, torch.tensor([1 + 0j], dtype=torch.complex128), torch.eye(2).to_sparse(), object()]
)
def test_what_cannot_be_saved_is_named_by_its_path(odd: Any) -> None:
    with pytest.raises(TypeError, match="steering/0/mine"):
        encode({"steering": [{"mine": odd}]})


def test_ordered_dicts_are_dicts() -> None:
    assert encode(OrderedDict(b=1, a=2))[0] == {"b": 1, "a": 2}


def test_loaded_tensors_are_aligned_like_fresh_ones(tmp_path: Path) -> None:
    tree = {str(size): torch.randn(size) for size in (1, 3, 17, 255)} | {"odd": torch.ones(3, dtype=torch.int8)}
    with saved(tmp_path, 1, tree) as checkpointer:
        assert all(tensor.data_ptr() % 64 == 0 for tensor in checkpointer.load(1).values())


def test_files_open_in_the_safetensors_library(tmp_path: Path) -> None:
    tree = {
        "model": {"weight": torch.randn(3, 2), "half": torch.randn(3).bfloat16(), "flag": torch.tensor(True)},
        "bytes": torch.arange(5, dtype=torch.uint8),
    }
    saved(tmp_path, 1, tree).close()
    with safe_open(step_folder(tmp_path, 1) / "tensors-00001.safetensors", "pt") as handle:
        found = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    assert set(found) == {"model/weight", "model/half", "model/flag", "bytes"}
    assert same(found["model/half"], tree["model"]["half"]) and same(found["model/weight"], tree["model"]["weight"])


def test_tensors_are_split_over_files(tmp_path: Path) -> None:
    tensors = {str(number): torch.full((10,), number, dtype=torch.float32) for number in range(5)}
    assert plan_files(tensors, 80) == [["0", "1"], ["2", "3"], ["4"]]
    assert plan_files(tensors, 1) == [["0"], ["1"], ["2"], ["3"], ["4"]]
    with saved(tmp_path, 1, tensors, largest=80) as checkpointer:
        assert len(list(step_folder(tmp_path, 1).glob("*.safetensors"))) == 3
        assert same(checkpointer.load(1), tensors)


def test_some_entries_alone_are_read(tmp_path: Path) -> None:
    tree = {"model": {"w": torch.ones(4)}, "optimizer": {"m": torch.zeros(4)}, "step": 3}
    saved(tmp_path, 1, tree, largest=1).close()
    path = step_folder(tmp_path, 1)
    flip(path / "tensors-00002.safetensors", -1)  # the optimizer's file is not looked at
    assert same(read_checkpoint(path, only=["model", "step"]), {"model": tree["model"], "step": 3})
    with pytest.raises(CorruptFile, match=r"tensors-00002\.safetensors"):
        read_checkpoint(path)
    with pytest.raises(KeyError, match="did you mean 'model'"):
        read_checkpoint(path, only=["modle"])


# Asynchronous writing -----------------------------------------------------------------------------------------------


def test_what_changes_after_save_is_not_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    write = folder_module.write_checkpoint

    def late(*given: Any) -> None:
        assert go.wait(10)
        write(*given)

    monkeypatch.setattr("foretrain.checkpoints.checkpointer.write_checkpoint", late)
    weight, counters, noted = torch.zeros(1000), [1], {"note": 1}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"weight": weight, "counters": counters}, noted)
        assert checkpointer.steps() == []  # save came back before anything was on disk
        weight.fill_(9)
        counters.append(2)
        noted["note"] = 2
        go.set()
        checkpointer.wait()
        found = checkpointer.load(1)
        assert found["counters"] == [1] and not found["weight"].any()
        assert checkpointer.manifest(1).metadata == {"note": 1}


def test_the_next_save_waits_and_reuses_the_buffers(tmp_path: Path) -> None:
    weight = torch.zeros(64)
    with Checkpointer(tmp_path, keep=9) as checkpointer:
        addresses = set()
        for step in range(1, 5):
            weight.fill_(step)
            checkpointer.save(step, {"weight": weight, "stays": torch.ones(2)})
            addresses.add(checkpointer._buffers["weight"].data_ptr())
        checkpointer.wait()
        assert len(addresses) == 1
        assert [float(checkpointer.load(step)["weight"][0]) for step in checkpointer.steps()] == [1, 2, 3, 4]
        checkpointer.save(5, {"weight": torch.ones(3)})  # another shape: another buffer
        checkpointer.wait()
        assert checkpointer.load(5)["weight"].shape == (3,)


# Which are kept -----------------------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    metrics = {10: 3.0, 20: 1.0, 30: 2.0, 40: math.nan, 50: None, 60: 1.5}
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step, metric in metrics.items():
            checkpointer.save(step, {"step": step}, metric=metric)
        checkpointer.wait()
        assert checkpointer.steps() == [20, 50, 60]
        assert checkpointer.manifest(20).metric == 1.0 and checkpointer.manifest(50).metric is None
    with Checkpointer(tmp_path, keep=1) as checkpointer:  # knows the metrics from disk
        checkpointer.save(70, {}, metric=1.2)
        checkpointer.wait()
        assert checkpointer.steps() == [20, 70]
        checkpointer.save(80, {}, metric=0.5)
        checkpointer.wait()
        assert checkpointer.steps() == [80]
    assert {child.name for child in tmp_path.iterdir()} == {"step-00000080"}


def test_without_best_only_the_newest_are_kept(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, keep=1, best=False) as checkpointer:
        checkpointer.save(1, {}, metric=0.0)
        checkpointer.save(2, {}, metric=1.0)
        checkpointer.wait()
        assert checkpointer.steps() == [2]


def test_what_is_written_off_the_schedule_does_not_count(tmp_path: Path) -> None:
    """Wherever a run was interrupted, it leaves the checkpoints of a run that was not."""
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step, passing in ((10, False), (20, False), (25, True), (27, True)):
            checkpointer.save(step, {"step": step}, metric=0.1 if step == 25 else 1.0, passing=passing)
        checkpointer.wait()
        assert checkpointer.steps() == [10, 20, 27] and checkpointer.manifest(27).passing
        assert checkpointer.load_newest() == (27, {"step": 27})
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        checkpointer.save(30, {}, metric=2.0)
        checkpointer.wait()
        assert checkpointer.steps() == [20, 30] and not checkpointer.manifest(30).passing
        checkpointer.save(40, {}, metric=0.5)
        checkpointer.wait()
        assert checkpointer.steps() == [30, 40]


def test_a_course_given_up_does_not_outlive_the_new_one(tmp_path: Path) -> None:
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (10, 20, 30):
            checkpointer.save(step, {}, metric=float(-step))
        checkpointer.wait()
        checkpointer.load(20)
        checkpointer.save(25, {"new": True})
        checkpointer.wait()
        assert checkpointer.steps() == [20, 25]


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"value": 1})
        checkpointer.save(1, {"value": 2})
        checkpointer.wait()
        assert checkpointer.load(1) == {"value": 2}
    assert [child.name for child in tmp_path.iterdir()] == ["step-00000001"]


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    checkpointer = saved(tmp_path, 100, {})
    with pytest.raises(RequestError, match="did you mean '100'"):
        checkpointer.load(101)
    with pytest.raises(RequestError, match=r"checkpoint\.keep"):
        Checkpointer(tmp_path, keep=0)
    assert Checkpointer(tmp_path / "none").load_newest() is None


# Damage -------------------------------------------------------------------------------------------------------------


def two_checkpoints(folder: Path) -> None:
    with Checkpointer(folder) as checkpointer:
        for step in (1, 2):
            checkpointer.save(
                step, {"weight": torch.full((50,), float(step)), "step": step}, {"loss": 0.5}, metric=0.25
            )


@pytest.mark.parametrize("name", ["tensors-00001.safetensors", "structure.json", "manifest.json"])
@pytest.mark.parametrize("fault", ["first byte", "middle byte", "last byte", "cut", "longer", "gone", "empty"])
def test_damage_is_named_and_the_one_before_is_used(tmp_path: Path, name: str, fault: str) -> None:
    two_checkpoints(tmp_path)
    path = step_folder(tmp_path, 2) / name
    data = path.read_bytes()
    match fault:
        case "first byte" | "middle byte" | "last byte":
            flip(path, {"first byte": 0, "middle byte": len(data) // 2, "last byte": -1}[fault])
        case "cut":
            path.write_bytes(data[: len(data) * 2 // 3])
        case "longer":
            path.write_bytes(data + b"x")
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
    said: list[str] = []
    with Checkpointer(tmp_path, warn=said.append) as checkpointer:
        found = checkpointer.load_newest()
        assert found is not None and found[0] == 1 and found[1]["step"] == 1
        assert len(said) == 1 and name in said[0] and "Using step 1 instead" in said[0]
        assert (tmp_path / "unusable-step-00000002").is_dir() and checkpointer.steps() == [1]
        checkpointer.save(2, {"again": True})
        checkpointer.wait()
        assert checkpointer.load(2) == {"again": True}


def test_flipped_bits_all_over_a_small_checkpoint_are_found(tmp_path: Path) -> None:
    saved(tmp_path, 1, {"w": torch.ones(3)}, largest=1).close()
    path = step_folder(tmp_path, 1)
    for file in path.iterdir():
        data = file.read_bytes()
        # White space in the manifest's own layout is no part of what it says.
        for position in random.Random(0).sample(
            [i for i, c in enumerate(data) if c not in b" \n"], min(60, len(data) // 2)
        ):
            changed = bytearray(data)
            changed[position] ^= 1 << (position % 7)
            file.write_bytes(changed)
            with pytest.raises(
                CorruptFile, match=file.name.replace(".", r"\.") if file.name != "manifest.json" else "checkpoint"
            ):
                read_checkpoint(path)
        file.write_bytes(data)
    read_checkpoint(path)


def test_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_checkpoints(tmp_path)
    monkeypatch.setattr(folder_module, "FORMAT", 2)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, {})
        checkpointer.wait()
    monkeypatch.setattr(folder_module, "FORMAT", 1)
    said: list[str] = []
    found = Checkpointer(tmp_path, warn=said.append).load_newest()
    assert found is not None and found[0] == 2
    assert "is of format 2" in said[0] and (tmp_path / "unusable-step-00000003" / "manifest.json").exists()


def test_a_reader_that_does_not_own_the_run_changes_nothing(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    flip(step_folder(tmp_path, 2) / "structure.json", 3)
    (tmp_path / ".tmp-step-00000003").mkdir()
    before = sorted(child.name for child in tmp_path.iterdir())
    found = Checkpointer(tmp_path, owner=False).load_newest()
    assert found is not None and found[0] == 1
    assert sorted(child.name for child in tmp_path.iterdir()) == before


def test_when_none_is_good_the_run_is_not_silently_begun_again(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for step in (1, 2):
        (step_folder(tmp_path, step) / "structure.json").unlink()
    for _ in range(2):
        with pytest.raises(RunError, match=r"None of the 2 checkpoints .*structure\.json"):
            Checkpointer(tmp_path).load_newest()


def test_manifest_says_what_was_noted(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    manifest = read_manifest(step_folder(tmp_path, 2))
    assert (manifest.step, manifest.metric, manifest.metadata) == (2, 0.25, {"loss": 0.5})
    assert set(manifest.files) == {"tensors-00001.safetensors", "structure.json"}


# A full disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_disk_that_fills_up_is_told_and_loses_nothing(tmp_path: Path, write: int) -> None:
    two_checkpoints(tmp_path)
    checkpointer = Checkpointer(tmp_path)
    faults.arm(f"full-disk:{write}")
    checkpointer.save(3, {"weight": torch.zeros(100_000)})
    with pytest.raises(
        RunError, match=r"The checkpoint of step 3 could not .*the disk is full \(400\.0 kB needed, .* free\)"
    ):
        checkpointer.wait()
    faults.arm("")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]
    assert checkpointer.load(2)["step"] == 2
    checkpointer.save(3, {"step": 3})  # once there is room the run can go on
    checkpointer.close()
    assert list_steps(tmp_path) == [2, 3]


def test_a_failed_write_is_told_by_the_next_call(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path)
    checkpointer.poll()
    faults.arm("full-disk:1")
    checkpointer.save(1, {})
    assert checkpointer._writing is not None
    checkpointer._writing.exception(timeout=10)
    with pytest.raises(RunError, match="step 1"):
        checkpointer.poll()
    checkpointer.poll()
    checkpointer.save(2, {})
    with pytest.raises(RunError, match="step 2"):
        checkpointer.save(3, {})
    said: list[str] = []
    with pytest.raises(ZeroDivisionError), Checkpointer(tmp_path, warn=said.append) as other:
        other.save(4, {})
        raise ZeroDivisionError
    assert "step 4" in said[0]


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_checkpoints(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000))
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(3, {"weight": torch.zeros(200_000)})
    with pytest.raises(RunError, match=r"5\.0 MB needed, 2\.0 MB free"):
        checkpointer.save(4, {"weight": torch.zeros(1_000_000)})
    assert list_steps(tmp_path) == [2, 3]


def test_a_file_size_limit_is_told(tmp_path: Path) -> None:
    script = """
import resource, sys, torch
from pathlib import Path
from foretrain.checkpoints import Checkpointer
from foretrain.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpointer = Checkpointer(Path(sys.argv[1]))
checkpointer.save(1, {"weight": torch.zeros(1000)})
checkpointer.save(2, {"weight": torch.zeros(100_000)})
try:
    checkpointer.close()
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "larger than this process may write" in done.stdout
    assert [child.name for child in tmp_path.iterdir()] == ["step-00000001"]


def test_other_faults_of_the_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    checkpointer = Checkpointer(tmp_path)
    monkeypatch.setattr("os.fsync", refuse)
    checkpointer.save(1, {})
    with pytest.raises(RunError, match="Input/output error"):
        checkpointer.close()
    assert list(tmp_path.iterdir()) == []


# Kills --------------------------------------------------------------------------------------------------------------

WRITER = """
import sys, torch
from pathlib import Path
from foretrain.checkpoints import Checkpointer
from foretrain import faults
folder, first = Path(sys.argv[1]), int(sys.argv[2])
checkpointer = Checkpointer(folder, keep=2)
checkpointer.load_newest()
faults.arm(sys.argv[3])
for step in range(first, first + 3):
    checkpointer.save(step, {"weight": torch.full((3000,), float(step)), "step": step})
    checkpointer.wait()
checkpointer.close()
"""


def write_until_killed(folder: Path, first: int, fault: str) -> int:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), fault]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


# A checkpoint is four writes here (header, tensor, structure, manifest): the fifth is the second checkpoint's first.
@pytest.mark.parametrize(
    ("fault", "newest"), [("mid-checkpoint:2", 1), ("mid-rename:2", 1), ("write:7", 1), ("write:12", 2)]
)
def test_a_kill_at_any_point_leaves_the_one_before(tmp_path: Path, fault: str, newest: int) -> None:
    code = write_until_killed(tmp_path, 1, fault)
    assert code == -signal.SIGKILL
    assert list_steps(tmp_path) == list(range(1, newest + 1))
    assert any(child.name.startswith(".tmp-") for child in tmp_path.iterdir())
    said: list[str] = []
    with Checkpointer(tmp_path, warn=said.append) as checkpointer:
        found = checkpointer.load_newest()
        assert found is not None and found[0] == newest and not said
        assert same(found[1], {"weight": torch.full((3000,), float(newest)), "step": newest})
    assert not any(child.name.startswith(".") for child in tmp_path.iterdir())


def test_a_kill_while_replacing_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    saved(tmp_path, 1, {"weight": torch.zeros(3000), "step": "old"}).close()
    code = write_until_killed(tmp_path, 1, "mid-rename:1")
    assert code == -signal.SIGKILL and list_steps(tmp_path) == []
    found = Checkpointer(tmp_path).load_newest()
    assert found is not None and found[1]["step"] == "old"


def test_leftovers_are_cleaned_and_a_finished_replacement_stands(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for name in (".tmp-step-00000009", ".trash-step-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tensors-00001.safetensors").write_bytes(b"half")
    shutil.copytree(step_folder(tmp_path, 1), tmp_path / ".old-step-00000002")
    assert Checkpointer(tmp_path).load(2)["step"] == 2
    assert sorted(child.name for child in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.mark.slow
def test_kills_at_random_instants(tmp_path: Path) -> None:
    chance = random.Random(0)
    first = 1
    for _ in range(20):
        write_until_killed(tmp_path, first, f"write:{chance.randint(1, 14)}")
        found = Checkpointer(tmp_path).load_newest()
        if found is not None:
            assert same(found[1], {"weight": torch.full((3000,), float(found[0])), "step": found[0]})
            first = found[0] + 1
    assert first > 5
