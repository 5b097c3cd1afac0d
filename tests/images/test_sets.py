"""Image sets: splits by content, what the cache keeps, how they are read, and images that must not be in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foretrain.errors import CorruptFile, RequestError
from foretrain.images.image_set import ImageSet
from foretrain.images.item import pixel_key
from foretrain.images.prepare import prepare_images
from foretrain.recipe import Domain
from foretrain.tokens.prepare import Prepared
from foretrain.tokens.stream import Stream
from tests.images.tiny_images import PATCHES, pictures, save_npz


def prepared(tmp_path: Path, path: str | list[str], items: dict[str, list[str]] | None = None, **more: Any) -> Prepared:
    corpus = {"images": Domain(path=path, **more)}
    return prepare_images(corpus, patches=PATCHES, items=items, cache=tmp_path / "cache")


def keys(found: Prepared) -> dict[str, list[str]]:
    return {split: images.keys() for split, images in found.sets["images"].items()}  # type: ignore[attr-defined]


def test_splits_are_by_content_alone(tmp_path: Path) -> None:
    images = pictures(80)
    one = save_npz(tmp_path / "one.npz", images)
    # The same images in another order, in two files, with some of them twice.
    order = np.random.default_rng(1).permutation(80)
    two = save_npz(tmp_path / "two.npz", images[order[:30]])
    three = save_npz(tmp_path / "three.npz", images[np.r_[order[30:], order[:9]]])
    found = keys(prepared(tmp_path, one, validation=0.2, steer=0.1))
    again = keys(prepared(tmp_path, [two, three], validation=0.2, steer=0.1))
    assert {split: set(own) for split, own in found.items()} == {split: set(own) for split, own in again.items()}
    sides = [set(own) for own in again.values()]
    assert len(sides) == 3 and sum(map(len, sides)) == len(set.union(*sides)) == 80
    assert sum(map(len, again.values())) == 89
    assert set(found["validation"]) <= set(keys(prepared(tmp_path, one, validation=0.4))["validation"])


def test_no_split_that_was_asked_for_is_empty(tmp_path: Path) -> None:
    found = keys(prepared(tmp_path, save_npz(tmp_path / "a.npz", pictures(3)), validation=0.001, steer=0.001))
    assert {split: len(own) for split, own in found.items()} == {"validation": 1, "steer": 1, "train": 1}
    with pytest.raises(RequestError, match="holds 2 different images, too few for 3 splits"):
        prepared(tmp_path, save_npz(tmp_path / "b.npz", pictures(2)), validation=0.1, steer=0.1)


def test_images_of_an_explicit_path_are_left_out_of_training(tmp_path: Path) -> None:
    images = pictures(20)
    path, other = save_npz(tmp_path / "a.npz", images), save_npz(tmp_path / "b.npz", images[:6])
    found = prepared(tmp_path, path, validation=other)
    assert {split: len(own) for split, own in keys(found).items()} == {"train": 14, "validation": 6}
    assert found.warnings == ["Domain 'images': 6 images that its validation or steer path holds too were left out."]


def test_a_set_reads_like_its_images(tmp_path: Path) -> None:
    images = pictures(10)
    found = prepared(tmp_path, save_npz(tmp_path / "a.npz", images), validation=0, limit=8)
    (own,) = found.sets["images"].values()
    assert isinstance(own, ImageSet)
    assert (own.documents, own.tokens, own.bytes, own.shape) == (8, 8 * PATCHES, 8 * 768, (3, 16, 16))
    there = {pixel_key(image.transpose(2, 0, 1)): number for number, image in enumerate(images)}
    read = own.gathered(np.array([0, 3 * PATCHES, 3 * PATCHES + 5, 9 * PATCHES]), PATCHES)["pixels"]
    assert read.dtype == torch.uint8
    assert [there[pixel_key(image.numpy())] for image in read] == [0, 3, 3, 1]  # behind the last comes the first
    assert own.names(3 * PATCHES + 5, PATCHES) == ["a.npz:3"]
    pieces = list(own.windows(PATCHES, PATCHES, rows=3, limit=7 * PATCHES + 3))
    assert [len(piece["pixels"]) for piece in pieces] == [3, 3, 1]
    assert torch.equal(torch.cat([piece["pixels"] for piece in pieces]), own.pixels(np.arange(7)))
    assert own.restated(1.0) == {}


def test_every_image_once_an_epoch_however_it_is_counted(tmp_path: Path) -> None:
    found = prepared(tmp_path, save_npz(tmp_path / "a.npz", pictures(12)), validation=0)
    stream = Stream(
        {"images": found.sets["images"]["train"]}, {"images": 1}, window=PATCHES, stride=PATCHES, rows=6, seed=3
    )
    seen, positions = [], []
    for _ in range(4):
        whole = stream.batch()
        parts = [stream.batch(rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([part["pixels"] for part in parts]), whole["pixels"])
        assert set(whole) == {"pixels", "domain", "start"}
        seen += [pixel_key(image.numpy()) for image in whole["pixels"]]
        positions += whole.positions.tolist()
        stream.advance()
    assert len(set(seen[:12])) == len(set(seen[12:])) == 12 and seen[:12] != seen[12:]
    assert positions == list(range(24))
    replayed = stream.windows_at("images", np.arange(24))["pixels"]
    assert [pixel_key(image.numpy()) for image in replayed] == seen


def test_the_cache_is_named_by_content(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz", pictures(12))
    told: list[int] = []
    corpus = {"images": Domain(path=path, validation=0.25)}
    first = prepare_images(corpus, patches=4, cache=tmp_path, progress=lambda count, name: told.append(count))
    stamp = {file: file.stat().st_mtime_ns for file in (tmp_path / "images").rglob("*.npy")}
    second = prepare_images({"other": corpus["images"]}, patches=9, cache=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "images").rglob("*.npy")} == stamp
    assert first.hashes["tokens"]["images"] == second.hashes["tokens"]["other"]
    assert first.hashes["corpus"]["images"] == second.hashes["corpus"]["other"]
    save_npz(tmp_path / "a.npz", pictures(12, 1))
    third = prepare_images(corpus, patches=4, cache=tmp_path)
    assert third.hashes["corpus"] != first.hashes["corpus"]


def test_a_damaged_set_is_named(tmp_path: Path) -> None:
    found = prepared(tmp_path, save_npz(tmp_path / "a.npz", pictures(12)), validation=0)
    (own,) = found.sets["images"].values()
    assert isinstance(own, ImageSet)
    path = own.folder / "pixels.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    again = ImageSet(own.folder, "train", PATCHES)
    again.pixels(np.arange(11))
    with pytest.raises(CorruptFile, match=r"are damaged. Delete that folder"):
        again.pixels(np.array([11]))
    path.write_bytes(content[:-5])
    with pytest.raises(CorruptFile, match="are damaged"):
        ImageSet(own.folder, "train", PATCHES)


def test_images_of_tasks_are_found_in_any_split(tmp_path: Path) -> None:
    images = pictures(30)
    path = save_npz(tmp_path / "a.npz", images)
    theirs = [pixel_key(image.transpose(2, 0, 1)) for image in (*images[[4, 20]], pictures(1, 9)[0])]
    found = prepared(tmp_path, path, {"task probe": theirs}, validation=0.5)
    assert [(one.items, one.number, one.document) for one in found.overlaps] == [
        ("task probe", 0, "a.npz:4"),
        ("task probe", 1, "a.npz:20"),
    ]


def test_images_that_are_not_alike(tmp_path: Path) -> None:
    small = save_npz(tmp_path / "small.npz", pictures(4, 0, (8, 8, 3)))
    large = save_npz(tmp_path / "large.npz", pictures(4))
    with pytest.raises(
        RequestError, match=r"corpus.images: .* small.npz:0 is 8x8 with 3 channels, and large.npz:0 is 16x"
    ):
        prepared(tmp_path, [small, large])
    with pytest.raises(RequestError, match="the images of all domains should be of one shape"):
        prepare_images({"a": Domain(path=small), "b": Domain(path=large)}, patches=4, cache=tmp_path)
    with pytest.raises(RequestError, match=r"corpus.images.group is a setting of text"):
        prepared(tmp_path, small, group="writer")
