from __future__ import annotations

import pytest
import torch

from foretrain.designers.unet import UNet


@pytest.mark.parametrize(("height", "width", "depth"), [(32, 32, 3), (9, 13, 3), (5, 5, 1), (7, 4, 2)])
def test_masks_of_any_size_lie_between_0_and_1_and_begin_near_the_start(height: int, width: int, depth: int) -> None:
    made = UNet(3, 8, depth, start=0.7, seed=1)
    masks = made(torch.randn(5, 3, height, width)).detach()
    assert masks.shape == (5, 1, height, width)
    assert bool(((masks > 0) & (masks < 1)).all())
    assert float(masks.mean()) == pytest.approx(0.7, abs=0.05)
    assert float(masks.std()) > 1e-4


def test_a_mask_depends_on_its_own_image_alone() -> None:
    made, images = UNet(1, 4, 3, seed=2), torch.randn(6, 1, 16, 16)
    torch.testing.assert_close(made(images)[2:4], made(images[2:4]), rtol=1e-5, atol=1e-6)


def test_every_level_is_used_and_sees_further_than_the_one_above() -> None:
    def reach(depth: int) -> int:
        made, image = UNet(1, 4, depth, seed=3).double(), torch.zeros(1, 1, 64, 64, dtype=torch.float64)
        # Normalisation joins all pixels of an image; what convolutions see is seen without it.
        for layer in [*made.down, *made.up]:
            layer[1] = torch.nn.Identity()  # type: ignore[index, operator]
        image.requires_grad_()
        (seen,) = torch.autograd.grad(made(image)[0, 0, 32, 32], image)
        return int((seen[0, 0].abs() > 0).any(0).sum())

    assert reach(1) == 3 < reach(2) < reach(3)


def test_weights_come_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first = UNet(3, 8, 3, seed=7).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    same, other = UNet(3, 8, 3, seed=7).state_dict(), UNet(3, 8, 3, seed=8).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
