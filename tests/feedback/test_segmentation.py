from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from foretrain.errors import RequestError
from foretrain.feedback.segmentation import NOWHERE, SegmentationFeedback, SegmentationSet, pixel_losses
from tests.steering.images import PATCH, SIDE, WIDTH, Told

COUNT = 12


def saved(folder: Path, **changes: Any) -> str:
    """Images whose right half is brighter and of class 1, with one column of unknown class."""
    dice = np.random.default_rng(0)
    images = dice.integers(0, 120, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    images[:, :, SIDE // 2 :] += 120
    masks = np.zeros((COUNT, SIDE, SIDE), np.int64)
    masks[:, :, SIDE // 2 :] = 1
    masks[:, :, 0] = 255
    arrays = {"images": images, "masks": masks, **changes}
    path = folder / "labelled.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def opened(folder: Path, told: Told | None = None, **changes: Any) -> SegmentationSet:
    told = told or Told(dtype=torch.float32)
    settings = SegmentationFeedback.model_validate({"path": saved(folder), **changes})
    return settings.open("labelled", told.context)


def test_the_head_and_the_gradient_use_disjoint_images_chosen_by_their_pixels(tmp_path: Path) -> None:
    made = opened(tmp_path, meta=0.25, limit=8)
    meta, train = ({image.numpy().tobytes() for image in made.pools[name].pixels} for name in ("meta", "train"))
    assert (len(meta), len(train), len(meta & train), made.items) == (2, 6, 0, 2)
    again = opened(tmp_path, meta=0.25, limit=8)
    assert torch.equal(made.pools["meta"].pixels, again.pools["meta"].pixels)


def test_the_same_image_twice_is_one_item(tmp_path: Path) -> None:
    images = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    images[2:] = 7
    path = saved(tmp_path, images=images, masks=np.zeros((4, SIDE, SIDE), np.int64))
    made = SegmentationFeedback(path=path).open("a", Told(dtype=torch.float32).context)
    assert {name: len(pool.pixels) for name, pool in made.pools.items()} == {"meta": 1, "train": 1}


def test_pixel_losses_are_those_of_enlarged_patch_logits() -> None:
    logits = torch.randn(2, 2, 2, 3, requires_grad=True)
    classes = torch.randint(0, 3, (2, SIDE, SIDE))
    classes[0, 0] = NOWHERE
    found = pixel_losses(logits, classes)
    large = functional.interpolate(logits.permute(0, 3, 1, 2), scale_factor=PATCH, mode="bilinear")
    expected = -large.log_softmax(1).gather(1, classes.clamp_min(0)[:, None])[:, 0] * (classes != NOWHERE)
    torch.testing.assert_close(found, expected)


def test_the_gradient_is_that_of_the_mean_loss_over_judged_pixels(tmp_path: Path) -> None:
    told = Told(dtype=torch.float32)
    made = opened(tmp_path, told)
    for step in range(3):
        made.adapt(step, 4)
    for weight in told.learner.masters.values():
        weight.grad = torch.ones_like(weight)
    names = [name for name in told.learner.masters if "layers.1" in name or name.startswith("layernorm")]
    assert len(names) > 5
    head = copy.deepcopy(made.head.state_dict())
    gradient, loss = made.gradient(7, 5, names)
    assert all(bool((weight.grad == 1).all()) for weight in told.learner.masters.values())  # type: ignore[union-attr]
    assert all(torch.equal(head[name], value) for name, value in made.head.state_dict().items())
    assert all(parameter.grad is None for parameter in made.head.parameters())

    batch, model = made._batch("meta", 7, 5), told.learner.model.eval()
    hidden = model(pixel_values=batch["pixels"]).last_hidden_state
    patches = hidden[:, 1:].reshape(5, SIDE // PATCH, SIDE // PATCH, WIDTH)
    losses = pixel_losses(patches @ made.head.weight.detach().T + made.head.bias.detach(), batch["classes"])
    mean = losses.sum() / (batch["classes"] >= 0).sum()
    expected = torch.autograd.grad(mean, [told.learner.masters[name] for name in names])
    assert loss == pytest.approx(float(mean.detach()), rel=1e-5)
    assert made.loss(7, 5) == pytest.approx(loss, rel=1e-5)
    assert int((batch["classes"] < 0).sum()) == 5 * SIDE
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(gradient[name], value, rtol=1e-4, atol=1e-7)
    assert float(gradient[names[0]].norm()) > 0


def test_the_head_learns_and_the_model_does_not(tmp_path: Path) -> None:
    told = Told(dtype=torch.float32)
    made = opened(tmp_path, told, head_lr=0.05, updates=2)
    before = {name: weight.detach().clone() for name, weight in told.learner.masters.items()}
    first = made.loss(0, 6)
    assert first == pytest.approx(np.log(2), rel=0.05)  # two classes, and a head that knows nothing yet
    for step in range(40):
        made.adapt(step, 4)
    assert made.loss(0, 6) < 0.8 * first
    for name, weight in told.learner.masters.items():
        assert torch.equal(before[name], weight) and weight.grad is None and weight.requires_grad
    assert told.learner.model.training


def test_draws_are_pure_in_seed_and_step_and_hold_no_image_twice(tmp_path: Path) -> None:
    made, again = opened(tmp_path), opened(tmp_path)
    batches = [made._batch("meta", step, 4)["pixels"] for step in range(4)]
    assert all(torch.equal(batch, again._batch("meta", step, 4)["pixels"]) for step, batch in enumerate(batches))
    assert not torch.equal(batches[0], batches[1])
    assert len({image.numpy().tobytes() for image in made._batch("train", 0, 6)["pixels"]}) == 6
    assert made._batch("meta", 0, 99).rows == 6


def test_ranks_share_the_images_and_a_missing_one_counts_nothing(tmp_path: Path) -> None:
    from foretrain.distributed import Group

    whole = opened(tmp_path)._batch("meta", 3, 5)
    shares = []
    for rank in range(2):
        told = Told(dtype=torch.float32)
        told.context.group = Group(rank=rank, world=2)
        shares.append(opened(tmp_path, told)._batch("meta", 3, 5))
    assert [share.rows for share in shares] == [3, 3]
    assert torch.equal(torch.cat([share["pixels"] for share in shares])[:5], whole["pixels"])
    assert bool((shares[1]["classes"][2] == NOWHERE).all())


def test_state_goes_round(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    for step in range(3):
        one.adapt(step, 4)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for made in (one, other):
        made.adapt(3, 4)
    assert torch.equal(one.head.weight, other.head.weight)
    assert one.loss(0, 4) == other.loss(0, 4)


def test_what_cannot_be_used_is_refused_in_words(tmp_path: Path) -> None:
    context = Told(dtype=torch.float32).context
    with pytest.raises(RequestError, match="no mask"):
        SegmentationFeedback(path=saved(tmp_path, masks=None)).open("a", context)
    with pytest.raises(RequestError, match="1 channels and the model reads 3"):
        grey = np.zeros((COUNT, SIDE, SIDE), np.uint8)
        grey[:, 0, 0] = np.arange(COUNT)
        SegmentationFeedback(path=saved(tmp_path, images=grey)).open("a", context)
    with pytest.raises(RequestError, match="set `ignore`"):
        masks = np.full((COUNT, SIDE, SIDE), 255, np.int64)
        SegmentationFeedback(path=saved(tmp_path, masks=masks)).open("a", context)
    with pytest.raises(RequestError, match="beside `meta`"):
        SegmentationFeedback(path=saved(tmp_path), limit=1).open("a", context)
