"""Images from archives, picture files and folders; and what is said of files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from foretrain.errors import RequestError
from foretrain.images.inputs import open_images, read_images
from foretrain.images.item import ImageItem, pixel_key
from tests.images.tiny_images import pictures


def test_an_archive_gives_back_what_was_put_in(tmp_path: Path) -> None:
    images, labels, masks = pictures(5), np.arange(5)[::-1], pictures(5, 1, (16, 16)) % 4
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=labels, masks=masks, other=np.zeros(3))
    items = read_images(tmp_path / "a.npz", label=True, mask=True)
    assert [item.id for item in items] == [f"a.npz:{number}" for number in range(5)]
    for number, item in enumerate(items):
        assert np.array_equal(item.pixels.transpose(1, 2, 0), images[number])
        assert item.label == 4 - number and item.mask is not None
        assert np.array_equal(item.mask, masks[number]) and item.mask.dtype == np.int64


def test_grey_archives_and_other_names(tmp_path: Path) -> None:
    images = pictures(3, 0, (4, 6))
    np.savez(tmp_path / "a.npz", X=images, y=np.array([2, 0, 1], np.uint8))
    items = read_images(tmp_path / "a.npz", limit=2)
    assert [item.label for item in items] == [2, 0] and items[0].mask is None
    assert items[1].pixels.shape == (1, 4, 6) and np.array_equal(items[1].pixels[0], images[1])


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"pictures": pictures(2)}, "holds no images: it should have an array named one of images, x, X"),
    ({"images": pictures(2) / 255}, "float64; pixels should be uint8"),
    ({"images": pictures(2, 0, (3, 16, 16))}, r"shape \[2, 3, 16, 16\].*Channels stand last"),
    ({"images": pictures(2, 0, (16,))}, r"shape \[2, 16\]"),
    ({"images": pictures(2), "labels": np.arange(3)}, r"'labels' is int64 \[3\].*in the shape \[2\]"),
    ({"images": pictures(2), "labels": np.array([0, -1])}, "whole numbers from 0 on"),
    ({"images": pictures(2), "masks": np.zeros((2, 8, 8), int)}, r"shape \[2, 16, 16\]"),
    ({"images": np.array([{}, {}], object)}, "without Python objects"),
    ({"images": pictures(0)}, "holds no images"),
]


@pytest.mark.parametrize(("arrays", "words"), WRONG, ids=lambda value: value[:20] if isinstance(value, str) else "")
def test_archives_that_do_not_fit(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(RequestError, match=words) as error:
        read_images(tmp_path / "a.npz")
    assert "a.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_damaged_archive_is_said_in_words(cut: int, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=pictures(9))
    path = tmp_path / "a.npz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RequestError, match="cannot be read as a numpy archive"):
        read_images(path)


def test_pictures_and_their_channels(tmp_path: Path) -> None:
    image = pictures(1)[0]
    for name, picture in {
        "rgb.png": Pillow.fromarray(image),
        "grey.png": Pillow.fromarray(image[..., 0]),
        "seen.png": Pillow.fromarray(np.concatenate([image, image[..., :1]], 2), "RGBA"),
        "palette.png": Pillow.fromarray(image).quantize(256),
        "photo.JPG": Pillow.fromarray(image),
    }.items():
        picture.save(tmp_path / name)
    found = {path.name: read_images(path)[0] for path in tmp_path.iterdir()}
    assert {name: item.pixels.shape[0] for name, item in found.items()} == {
        "rgb.png": 3, "grey.png": 1, "seen.png": 3, "palette.png": 3, "photo.JPG": 3
    }  # fmt: skip
    assert found["rgb.png"].key == found["seen.png"].key == pixel_key(image.transpose(2, 0, 1))
    assert np.array_equal(found["grey.png"].pixels[0], image[..., 0])
    with pytest.raises(RequestError, match=r"one size and number of channels.*is 16x16 with 1 channels"):
        read_images(tmp_path)


def test_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    Pillow.fromarray(pictures(1)[0, ..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "deep.png").read_bytes()[:40])
    (tmp_path / "text.jpg").write_text("hello")
    for name, words in {"deep.png": "8 bits", "broken.png": "cannot be read", "text.jpg": "cannot be read"}.items():
        with pytest.raises(RequestError, match=words):
            read_images(tmp_path / name)


def test_folders_of_classes_give_labels(tmp_path: Path) -> None:
    for number, name in enumerate(("dog/b.png", "cat/1.png", "cat/2.png", ".hidden/x.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Pillow.fromarray(pictures(1, number)[0]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert [(item.id, item.label) for item in read_images(tmp_path)] == [
        ("cat/1.png", 0), ("cat/2.png", 0), ("dog/b.png", 1)
    ]  # fmt: skip
    Pillow.fromarray(pictures(1)[0]).save(tmp_path / "loose.png")
    assert {item.label for item in read_images(tmp_path)} == {None}
    with pytest.raises(RequestError, match="has no label, and every image here needs one"):
        read_images(tmp_path, label=True)


def test_paths_that_hold_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(RequestError, match=r"should end in one of \.jpeg, \.jpg, \.npz, \.png"):
        open_images(str(tmp_path / "a.txt"))
    with pytest.raises(RequestError, match="holds no images"):
        open_images(str(tmp_path))
    with pytest.raises(RequestError, match=r"did you mean 'a.txt'"):
        open_images(str(tmp_path / "b.txt"))
    with pytest.raises(RequestError, match="did you mean 'shapes'"):
        open_images("builtin:shape")
    with pytest.raises(RequestError, match="did you mean 'count'"):
        open_images("builtin:shapes", {"counts": 3})
    with pytest.raises(RequestError, match=r"'options' .size. are for 'builtin:' only"):
        open_images(str(tmp_path / "a.npz"), {"size": 3})


def test_a_key_is_of_shape_and_pixels() -> None:
    one = np.arange(24, dtype=np.uint8)
    assert ImageItem("a", one.reshape(1, 4, 6)).key == ImageItem("b", one.reshape(1, 4, 6).copy(), 3).key
    assert ImageItem("a", one.reshape(1, 4, 6)).key != ImageItem("a", one.reshape(1, 6, 4)).key
    assert len({pixel_key(one.reshape(1, 4, 6) + np.uint8(n)) for n in range(9)}) == 9
