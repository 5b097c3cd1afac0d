"""Augmentations: against what they say of themselves, and a row never depends on the rows beside it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

pytest.importorskip("kornia", reason="kornia is not installed (extra [vision])")

from foretrain.augment.blur import blur
from foretrain.augment.colour import jitter, solarise
from foretrain.augment.crops import boxes, crop
from foretrain.augment.normalise import normalise, unit
from foretrain.augment.views import Augmentation, make_views
from foretrain.batch import Batch

PLAIN = Augmentation(flip=0, jitter=0, blur_first=0, blur_second=0, blur_local=0, solarise=0)
NEVER = np.zeros(2)


def images(rows: int = 20, channels: int = 3, side: int = 16) -> Batch:
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (rows, channels, side, side), dtype=np.uint8))
    return Batch({"pixels": pixels}, seed=3, step=0, positions=torch.arange(100, 100 + rows), domains=("a",))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_does_not_depend_on_the_rows_beside_it(channels: int) -> None:
    settings, often = Augmentation(blur_width=0.05), np.array([0.8, 0.3])

    def views(batch: Batch) -> torch.Tensor:
        return make_views(batch, "x", 2, 12, (0.1, 0.9), settings, often, often)

    batch = images(channels=channels)
    whole = views(batch)
    assert whole.shape == (20, 2, channels, 12, 12) and whole.dtype == torch.float32
    assert torch.equal(whole, views(batch))
    random = np.random.default_rng(1)
    for count in (1, 1, 2, 3, 7, 13):
        rows = torch.from_numpy(random.permutation(20)[:count])
        assert torch.equal(views(batch.take(rows)), whole[rows])


def test_views_differ_by_place_purpose_and_seed() -> None:
    batch = images().with_(pixels=images()["pixels"][:1].expand(20, -1, -1, -1))
    whole = make_views(batch, "x", 2, 12, (0.2, 0.9), PLAIN, NEVER, NEVER)
    flat = whole.flatten(0, 1).flatten(1)
    assert len(torch.unique(flat, dim=0)) == 40
    assert not torch.equal(whole, make_views(batch, "y", 2, 12, (0.2, 0.9), PLAIN, NEVER, NEVER))
    other = Batch(dict(batch), seed=4, step=0, positions=batch.positions, domains=("a",))
    assert not torch.equal(whole, make_views(other, "x", 2, 12, (0.2, 0.9), PLAIN, NEVER, NEVER))


def test_a_whole_plain_view_is_the_normalised_image() -> None:
    batch = images()
    # A crop of all of the area and another ratio is cut at the image's sides; one of those is then shorter.
    maps = np.zeros((20, 1, 2, 3))
    maps[..., 0, 0] = maps[..., 1, 1] = 1
    found = normalise(crop(unit(batch["pixels"]), maps, 16))
    torch.testing.assert_close(found, batch["pixels"].float() / 127.5 - 1, atol=1e-5, rtol=0)
    maps[..., 0, 0] = -1
    mirrored = crop(unit(batch["pixels"]), maps, 16)
    torch.testing.assert_close(mirrored, unit(batch["pixels"]).flip(-1), atol=1e-5, rtol=0)


def test_a_crop_is_the_part_of_the_image_that_its_box_says() -> None:
    picture = unit(images(1)["pixels"])
    quarter = np.array([[[[0.5, 0, 0.5], [0, 0.5, -0.5]]]])  # right, upper
    torch.testing.assert_close(crop(picture, quarter, 8), picture[:, :, :8, 8:], atol=1e-5, rtol=0)


def test_boxes_lie_in_the_image_and_have_areas_in_the_range() -> None:
    uniform = np.random.default_rng(0).random((5000, 5))
    maps = boxes(uniform, (0.05, 0.4), 0.3)
    width, height = np.abs(maps[:, 0, 0]), maps[:, 1, 1]
    assert ((width * height > 0.05 - 1e-9) & (width * height < 0.4 + 1e-9)).all()
    assert (np.abs(maps[:, 0, 2]) + width <= 1 + 1e-9).all() and (np.abs(maps[:, 1, 2]) + height <= 1 + 1e-9).all()
    ratio = width / height
    assert 0.75 - 1e-9 <= ratio.min() < 0.76 and 1.32 < ratio.max() <= 4 / 3 + 1e-9
    assert abs((maps[:, 0, 0] < 0).mean() - 0.3) < 0.03
    assert abs(maps[:, 0, 2].mean()) < 0.02 and abs((width * height).mean() - 0.225) < 0.01


@pytest.mark.parametrize("channels", [1, 2])
def test_blur_is_a_convolution_with_a_gaussian(channels: int) -> None:
    pictures, sigma = unit(images(3, channels)["pixels"]), np.array([0.2, 0.7, 1.0])
    found = blur(pictures, sigma, 1.0)
    for row, width in enumerate(sigma):
        line = torch.exp(-(torch.arange(-3, 4) ** 2) / (2 * width**2))
        kernel = torch.outer(line, line) / line.sum() ** 2
        padded = functional.pad(pictures[row : row + 1], (3, 3, 3, 3), mode="reflect")
        expected = functional.conv2d(padded, kernel.float().expand(channels, 1, 7, 7), groups=channels)
        torch.testing.assert_close(found[row : row + 1], expected, atol=1e-5, rtol=0)


def test_colours() -> None:
    pictures = unit(images(2)["pixels"]) * 0.4 + 0.2
    one, none = np.ones(2), np.zeros(2)
    torch.testing.assert_close(jitter(pictures, one, one, one, none), pictures, atol=1e-5, rtol=0)
    brighter = jitter(pictures, np.array([1.2, 0.5]), one, one, none)
    torch.testing.assert_close(brighter, pictures * torch.tensor([1.2, 0.5])[:, None, None, None], atol=1e-5, rtol=0)
    flat = jitter(pictures, one, none, one, none)
    assert float(flat.flatten(1).std(1).max()) < 1e-5
    grey = jitter(pictures, one, one, none, none)
    assert float((grey[:, 0] - grey[:, 2]).abs().max()) < 1e-5
    assert torch.equal(jitter(pictures[:, :1], one, one, none, one), pictures[:, :1]), "one channel has no hue"
    third = jitter(pictures, one, one, one, np.full(2, 1 / 3))  # red is green, green is blue
    torch.testing.assert_close(third, pictures.roll(1, 1), atol=1e-4, rtol=0)
    assert torch.equal(solarise(torch.tensor([[[[0.2, 0.5, 0.75]]]])), torch.tensor([[[[0.2, 0.5, 0.25]]]]))


def test_each_change_comes_as_often_as_it_is_asked_for() -> None:
    batch = images(200, 1, 8)
    plain = make_views(batch, "x", 2, 8, (0.4, 1.0), PLAIN, NEVER, NEVER)

    def changed(settings: Augmentation, blurred: np.ndarray = NEVER, solarised: np.ndarray = NEVER) -> list[float]:
        found = make_views(batch, "x", 2, 8, (0.4, 1.0), settings, blurred, solarised)
        return (found != plain).flatten(2).any(2).float().mean(0).tolist()

    fixed = PLAIN.model_copy(update={"blur_width": 0.1})
    assert changed(PLAIN) == [0, 0]
    assert all(math.isclose(share, 0.7, abs_tol=0.1) for share in changed(PLAIN.model_copy(update={"jitter": 0.7})))
    first, second = changed(fixed, blurred=np.array([1.0, 0.2]))
    # About a sixth of the widths are so small that no neighbour counts.
    assert 0.7 < first < 0.95 and 0.1 < second < 0.25
    first, second = changed(fixed, solarised=np.array([0.0, 0.5]))
    assert first == 0 and math.isclose(second, 0.5, abs_tol=0.1)
    assert all(math.isclose(share, 0.4, abs_tol=0.1) for share in changed(PLAIN.model_copy(update={"flip": 0.4})))


def test_no_views_and_no_rows() -> None:
    none = np.zeros(0)
    assert make_views(images(3), "x", 0, 8, (0.1, 0.4), PLAIN, none, none).shape == (3, 0, 3, 8, 8)
    assert make_views(images(3).take(slice(0, 0)), "x", 2, 8, (0.1, 0.4), PLAIN, NEVER, NEVER).shape == (0, 2, 3, 8, 8)
