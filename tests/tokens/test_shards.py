from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from foretrain import faults
from foretrain.errors import CorruptFile, RunError
from foretrain.tokens import shard_file
from foretrain.tokens.shard_file import PIECE
from foretrain.tokens.shards import SetWriter, TokenSet

MakeSet = Callable[..., TokenSet]


@pytest.mark.parametrize("shard_tokens", [1 << 30, 7, 1])
def test_reads_back_what_was_written(make_set: MakeSet, shard_tokens: int) -> None:
    found = make_set([3, 5, 1, 8], shard_tokens=shard_tokens)
    assert (found.tokens, found.documents, found.bytes) == (17, 4, 34)
    assert len(found.paths) == {1 << 30: 1, 7: 2, 1: 4}[shard_tokens]
    assert found.read(0, 17).tolist() == list(range(17))
    assert found.read(2, 9).tolist() == list(range(2, 11))
    assert found.read(15, 5).tolist() == [15, 16, 0, 1, 2], "behind the end comes the beginning"
    assert found.gather(np.array([-1, 4]), 3).tolist() == [[16, 0, 1], [4, 5, 6]]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(65536, np.uint16), (65537, np.uint32)])
def test_ids_take_two_bytes_where_they_fit(tmp_path: Path, vocabulary: int, dtype: type) -> None:
    with SetWriter(tmp_path, "train", vocabulary) as writer:
        writer.append([0, vocabulary - 1], 2, "a")
    assert writer.dtype is dtype
    assert TokenSet(writer.paths).read(0, 2).tolist() == [0, vocabulary - 1]


@pytest.mark.parametrize("shard_tokens", [1 << 30, 40])
def test_segments_equal_a_naive_count(make_set: MakeSet, shard_tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 12, 40)
    found = make_set(lengths.tolist(), shard_tokens=shard_tokens)
    owner = np.repeat(np.arange(40), lengths)
    starts = np.array([0, 1, 5, 17, found.tokens - 3, found.tokens - 1])
    expected = []
    for start in starts.tolist():
        row = [0]
        for place in range(start + 1, start + 30):
            row.append(row[-1] + int(owner[place % found.tokens] != owner[(place - 1) % found.tokens]))
        expected.append(row)
    assert found.segments(starts, 30).tolist() == expected


def test_names_are_those_of_the_documents_touched(make_set: MakeSet) -> None:
    found = make_set([3, 5, 1, 8], shard_tokens=7)
    assert found.names(0, 3) == ["doc:0"]
    assert found.names(2, 2) == ["doc:0", "doc:1"]
    assert found.names(7, 3) == ["doc:1", "doc:2", "doc:3"]
    assert found.names(16, 2) == ["doc:3", "doc:0"]


@pytest.mark.parametrize(("window", "stride"), [(9, 8), (8, 8), (12, 8)])
@pytest.mark.parametrize("limit", [None, 30, 1000])
def test_windows_in_order_judge_every_token_once(
    make_set: MakeSet, window: int, stride: int, limit: int | None
) -> None:
    found = make_set([5, 30, 2, 20])
    total = 57 if limit is None else min(limit, 57)
    batches = list(found.windows(window, stride, rows=3, limit=limit, segments=True))
    judged = torch.cat([batch["tokens"][batch["valid"]] for batch in batches])
    assert judged.tolist() == list(range(total))
    for batch in batches:
        assert batch["tokens"].shape == batch["valid"].shape == batch["segments"].shape
        assert batch["tokens"].shape[1] == window and batch["tokens"].shape[0] <= 3
        # Whatever comes before a valid token in its row comes before it in the set.
        steps = batch["tokens"][:, 1:] - batch["tokens"][:, :-1]
        assert set(steps.unique().tolist()) <= {1, 1 - 57}


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_damaged_tokens_are_named_when_first_read(make_set: MakeSet) -> None:
    found = make_set([100_000])  # several checked pieces
    _flip(found.paths[0], 4096 + PIECE + 10)
    damaged = TokenSet(found.paths)
    size = PIECE // 2
    assert damaged.read(0, size).tolist() == found.read(0, size).tolist(), "other pieces are whole"
    with pytest.raises(CorruptFile, match=r"train-00000\.shard is damaged.*Delete the folder"):
        damaged.read(size + 100, 10)
    with pytest.raises(CorruptFile):
        damaged.read(size - 5, 10)  # a window that only begins in a whole piece


@pytest.mark.parametrize("place", [3, 20, 60, -1, -200])
def test_damage_elsewhere_is_found_on_opening(make_set: MakeSet, place: int) -> None:
    path = make_set([50] * 20).paths[0]
    _flip(path, place)
    with pytest.raises(CorruptFile, match=r"train-00000\.shard"):
        TokenSet([path])


def test_a_short_a_missing_and_a_newer_shard(make_set: MakeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_set([500]).paths[0]
    content = path.read_bytes()
    for size in (0, 100, 4200, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(CorruptFile, match=r"train-00000\.shard"):
            TokenSet([path])
    path.unlink()
    with pytest.raises(CorruptFile, match="No such file"):
        TokenSet([path])
    path.write_bytes(content)
    monkeypatch.setattr(shard_file, "FORMAT", 2)
    with pytest.raises(CorruptFile, match="format version is 1, and this foretrain reads 2"):
        TokenSet([path])


def test_an_aborted_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="halfway"), SetWriter(tmp_path / "out", "train", 100) as writer:
        writer.append([1, 2, 3], 3, "a")
        raise ValueError("halfway")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    try:
        faults.arm("full-disk:1")
        with pytest.raises(RunError, match="disk is full"), SetWriter(tmp_path, "train", 100) as writer:
            writer.append(np.zeros(PIECE), 3, "a")
    finally:
        faults.arm("")
    assert list(tmp_path.iterdir()) == []


def test_hash_is_of_content(make_set: MakeSet) -> None:
    assert make_set([3, 5]).hash == make_set([3, 5]).hash
    assert len({make_set(lengths).hash for lengths in ([3, 5], [5, 3], [8], [3, 5, 1])}) == 4


def test_memory_does_not_grow_with_the_set(make_set: MakeSet) -> None:
    found = make_set([1000] * 2000)
    tracemalloc.start()
    try:
        again = TokenSet(found.paths)
        rng = np.random.default_rng(0)
        for _ in range(50):
            starts = rng.integers(0, found.tokens, 8)
            again.gather(starts, 257)
            again.segments(starts, 257)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000 < found.tokens  # reading the index on opening takes 1 MiB; the tokens are 4 MB


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's account of mapped pages")
def test_pages_are_given_back(make_set: MakeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def resident(path: Path) -> int:
        """Bytes of a file that this process holds in memory."""
        kilobytes, inside = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if "-" in line.split(" ")[0]:
                inside = line.endswith(path.name) and str(path.parent) in line
            elif inside and line.startswith("Rss:"):
                kilobytes += int(line.split()[1])
        return 1024 * kilobytes

    monkeypatch.setattr(shard_file, "RELEASE", 1 << 40)  # what earlier tests mapped counts too
    found = make_set([50_000] * 160)  # 16 MB
    found.read(0, found.tokens)
    if resident(found.paths[0]) < 15_000_000:
        pytest.skip("the system takes pages back by itself just now, so the test could not fail")
    monkeypatch.setattr(shard_file, "RELEASE", 1 << 20)
    for start in range(0, found.tokens, 10_000):
        found.read(start, 257)
    assert resident(found.paths[0]) < 3_000_000
