from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from foretrain.steering._masking import blurred, keep_penalty, masked, total_variation
from foretrain.steering.random_masks import RandomMasks
from tests.steering.images import SIDE, Told, crops


def made(told: Told, **changes: Any) -> RandomMasks:
    part = RandomMasks(burn_in=0.0, **changes)
    part.setup(told.context)
    return part


def test_blur_is_scipys_gaussian_of_a_share_of_the_shorter_side() -> None:
    images = torch.randn(3, 2, 20, 30)
    expected = gaussian_filter(images.numpy(), (0, 0, 1.5, 1.5), mode="mirror", radius=(0, 0, 5, 5))
    np.testing.assert_allclose(blurred(images, 1.5 / 20).numpy(), expected, atol=1e-5)


def test_what_a_mask_keeps_stays_and_what_it_hides_is_blurred() -> None:
    images, soft = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    masks = torch.zeros(2, 1, 4, 4)
    masks[:, :, :2] = 1.0
    masks[0, :, 3] = 0.25
    seen = masked(images, masks, soft)
    assert torch.equal(seen[:, :, :2], images[:, :, :2])
    torch.testing.assert_close(seen[:, :, 2], soft[:, :, 2])
    torch.testing.assert_close(seen[0, :, 3], 0.25 * images[0, :, 3] + 0.75 * soft[0, :, 3])


def test_the_terms_of_masks_are_what_the_paper_says() -> None:
    masks = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]], [[[1.0, 1.0], [1.0, 0.6]]]])
    assert float(keep_penalty(masks, 0.6)) == pytest.approx(((0.5 - 0.6) ** 2 + (0.9 - 0.6) ** 2) / 2)
    across, down = (1.0 + 0.0 + 0.0 + 0.4) / 4, (0.5 + 0.5 + 0.0 + 0.4) / 4
    assert float(total_variation(masks)) == pytest.approx(across + down)


@pytest.mark.parametrize(("keep", "contrast"), [(0.6, 3.0), (0.2, 8.0), (0.95, 0.5)])
def test_random_masks_keep_what_they_should_each_of_them(keep: float, contrast: float) -> None:
    batch = crops(3)
    masks = made(Told(), keep=keep, contrast=contrast).masks(batch["globals"].flatten(0, 1), batch, slice(0, 3))
    assert masks.shape == (6, 1, SIDE, SIDE)
    torch.testing.assert_close(masks.mean((1, 2, 3)), torch.full((6,), keep, dtype=masks.dtype), rtol=0, atol=1e-5)
    assert bool(((masks >= 0) & (masks <= 1)).all())
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 6


def test_smoothness_and_contrast_set_the_total_variation() -> None:
    batch, told = crops(8), Told()
    images = batch["globals"].flatten(0, 1)

    def variation(**changes: Any) -> float:
        return float(total_variation(made(told, **changes).masks(images, batch, slice(0, 8))))

    assert variation(smoothness=0.25) < variation(smoothness=0.125)
    assert variation(contrast=1.0) < variation(contrast=4.0)
    assert variation(contrast=0.0) == pytest.approx(0.0, abs=1e-6)


def test_random_masks_are_pure_in_seed_and_position_and_blind_to_the_image() -> None:
    told, batch = Told(), crops(6)
    part = made(told)
    whole = part.masks(batch["globals"].flatten(0, 1), batch, slice(0, 6))
    rows = torch.tensor([4, 1])
    some = batch.take(rows)
    other = made(told).masks(torch.zeros_like(some["globals"].flatten(0, 1)), some, slice(0, 2))
    torch.testing.assert_close(other.unflatten(0, (2, 2)), whole.unflatten(0, (6, 2))[rows])
    assert torch.equal(part.view(batch)["globals"], made(told).view(batch)["globals"])
    assert told.figures["random_masks/keep"] == pytest.approx(0.6, abs=1e-5)
    assert math.isfinite(told.figures["random_masks/tv"])


def test_random_masks_without_strength_or_in_the_burn_in_leave_crops_alone() -> None:
    batch = crops()
    assert torch.equal(made(Told(), strength=0.0).view(batch)["globals"], batch["globals"])
    part = RandomMasks(burn_in=2)
    part.setup(Told().context)
    assert part.view(crops(step=1))["globals"].equal(crops(step=1)["globals"])
    assert not part.view(crops(step=2))["globals"].equal(crops(step=2)["globals"])
    assert [part.step_kind(step) for step in range(3)] == ["plain", "plain", "masked"]
