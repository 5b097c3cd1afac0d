"""Probes of frozen image features: on a made-up subject whose features are known, and on a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from transformers import ViTConfig, ViTModel

from foretrain.errors import RequestError
from foretrain.images.subject import ImageSubject
from foretrain.tasks._images import features
from foretrain.tasks.image_probe import ImageProbe, neighbour_votes
from foretrain.tasks.segmentation_probe import IGNORED, SegmentationProbe, confusion, mean_iou

SIDE, PATCH = 8, 2
Arrays = NDArray[Any]


class Seeing:
    """A subject whose features of a patch are its mean pixel, written in a few ways, and noise that says nothing."""

    patch, channels, batch_images = PATCH, 1, 7

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        assert len(pixels) <= self.batch_images
        grey = torch.nn.functional.avg_pool2d(pixels.float(), PATCH)[:, 0]
        noise = torch.sin(1000 * pixels.float().mean((1, 2, 3)))[:, None, None].expand_as(grey)
        told = torch.stack([grey / 255, (grey > 100).float(), (grey > 200).float(), noise], -1)
        patches = torch.ones_like(told) if self.blind else told
        return patches.flatten(1, 2).mean(1), patches


def pictures(count: int = 60) -> dict[str, Arrays]:
    """Left half dark, right half of one of two brightnesses; the mask is brightness, the label that of the right."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    images = random.integers(0, 60, (count, SIDE, SIDE))
    images[:, :, SIDE // 2 :] += np.where(labels, 190, 120)[:, None, None]
    masks = np.zeros_like(images)
    masks[:, :, SIDE // 2 :] = 1 + labels[:, None, None]
    return {"images": images.astype(np.uint8), "labels": labels, "masks": masks}


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    def save(name: str = "a", **changes: Any) -> str:
        path = tmp_path / f"{name}.npz"
        arrays = {key: value for key, value in {**pictures(), **changes}.items() if value is not None}
        np.savez(path, **arrays)
        return str(path)

    return save


def test_what_can_be_seen_in_patches_is_segmented(saved: Callable[..., str]) -> None:
    task = SegmentationProbe(path=saved(), steps=150, batch=8, resamples=50)
    found = task.evaluate(Seeing(), 0)
    assert found["accuracy"].value > 0.95 and found["miou"].value > 0.9
    assert found == task.evaluate(Seeing(), 1), "the run's seed plays no part"
    items = len(task.items()[1])
    assert found["miou"].items == found["accuracy"].items == items == len(found["accuracy"].values)
    blind = task.evaluate(Seeing(blind=True), 0)
    assert blind["miou"].value < 0.5
    short = [task.model_copy(update={"steps": 2, "head_seed": seed}).evaluate(Seeing(), 0) for seed in (0, 0, 1)]
    assert short[0] == short[1] != short[2]


def test_the_interval_is_as_wide_as_leaving_images_out_says(saved: Callable[..., str]) -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet([8, 2, 2, 6], size=80)
    counts = np.stack([random.multinomial(50, share).reshape(2, 2) for share in shares])
    found = SegmentationProbe(path=saved(), resamples=2000)._mean_iou(counts)
    assert found.value == mean_iou(counts.sum(0)) and found.items == 80
    without = np.array([mean_iou(counts.sum(0) - one) for one in counts])
    error = np.sqrt(79 / 80 * ((without - without.mean()) ** 2).sum())
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_an_ignored_class_is_neither_learned_nor_judged(saved: Callable[..., str]) -> None:
    masks = pictures()["masks"] + 1
    masks[:, :2] = 0  # unknown at the top
    task = SegmentationProbe(path=saved(masks=masks), steps=60, batch=8, resamples=10, ignore=0)
    found = task.evaluate(Seeing(), 0)
    assert found["accuracy"].value > 0.85
    assert set(found["accuracy"].weights) == {float(SIDE * (SIDE - 2))}


def test_confusion_and_mean_iou_equal_sets_of_pixels() -> None:
    random = np.random.default_rng(0)
    true, found = (torch.from_numpy(random.integers(0, 3, (4, 5, 6))) for _ in range(2))
    true[true == 2] = 3  # class 2 is found and never true, class 4 neither
    true[0, 0] = IGNORED
    counts = confusion(found, true, 5)
    assert counts.shape == (4, 5, 5) and counts.sum() == 4 * 30 - 6 and counts[0].sum() == 24
    places = [(tuple(place), int(true[tuple(place)])) for place in np.ndindex(4, 5, 6)]
    judged = {place: label for place, label in places if label != IGNORED}
    expected = []
    for label in (0, 1, 3):
        is_true = {place for place, own in judged.items() if own == label}
        is_found = {place for place in judged if int(found[place]) == label}
        expected.append(len(is_true & is_found) / len(is_true | is_found))
    assert mean_iou(counts.sum(0)) == pytest.approx(np.mean(expected))


def test_labels_are_read_off_by_neighbours_and_linearly(saved: Callable[..., str]) -> None:
    found = ImageProbe(path=saved(), neighbours=3).evaluate(Seeing(), 0)
    assert found["knn_accuracy"].value > 0.9 and found["linear_accuracy"].value == 1
    labels = np.random.default_rng(1).integers(0, 2, 60)
    shuffled = ImageProbe(path=saved(labels=labels), neighbours=3).evaluate(Seeing(), 0)
    assert shuffled["linear_accuracy"].value < 0.85 and shuffled["knn_accuracy"].value < 0.85


def test_names_of_classes_may_have_gaps_and_one_may_be_new(saved: Callable[..., str]) -> None:
    arrays = pictures()
    path = saved(labels=arrays["labels"] * 5 + 2)
    fresh = saved("b", images=255 - arrays["images"][:9], labels=np.full(9, 3), masks=None)
    assert ImageProbe(path=path).evaluate(Seeing(), 0)["linear_accuracy"].value == 1
    assert ImageProbe(path=path, test=fresh).evaluate(Seeing(), 0)["linear_accuracy"].value == 0


def test_votes_equal_a_loop() -> None:
    random = torch.Generator().manual_seed(0)
    known, asked = torch.randn(9, 4, generator=random), torch.randn(5, 4, generator=random)
    labels = torch.randint(0, 3, (9,), generator=random)
    found = neighbour_votes(known, labels, asked, 3, 4)
    for row, vector in enumerate(asked):
        cosines = [float(vector @ other / vector.norm() / other.norm()) for other in known]
        votes = [0.0] * 3
        for number in sorted(range(9), key=lambda n: -cosines[n])[:4]:
            votes[int(labels[number])] += float(np.exp(cosines[number] / 0.07))
        np.testing.assert_allclose(found[row].numpy(), votes, rtol=1e-3)
    everyone = neighbour_votes(known, labels, asked, 3, 100)
    torch.testing.assert_close(everyone, neighbour_votes(known, labels, asked, 3, 9))


@pytest.mark.parametrize("kind", [ImageProbe, SegmentationProbe])
def test_the_probe_never_learns_from_what_judges(saved: Callable[..., str], kind: Any) -> None:
    arrays = pictures()
    path = saved(**{name: np.concatenate([value, value[:20]]) for name, value in arrays.items()})
    task = kind(path=path, test=0.3)
    train, test = task.items()
    assert len(train) + len(test) == 80 and 12 < len(test) < 40
    assert not {item.key for item in train} & {item.key for item in test}
    assert [item.id for item in task.images()] == [item.id for item in test]
    limited = kind(path=path, limit=30).items()
    assert len(limited[0]) + len(limited[1]) == 30
    held = saved("held", **{name: value[:5] for name, value in arrays.items()})
    with pytest.raises(RequestError, match="share 5 images"):
        kind(path=path, test=held).check()


def test_faults(saved: Callable[..., str]) -> None:
    with pytest.raises(RequestError, match="no label"):
        ImageProbe(path=saved(labels=None)).check()
    with pytest.raises(RequestError, match="no mask"):
        SegmentationProbe(path=saved(masks=None)).check()
    with pytest.raises(RequestError, match="all images have the label 0"):
        ImageProbe(path=saved(labels=np.zeros(60, int))).check()
    with pytest.raises(RequestError, match="too few"):
        ImageProbe(path=saved(**{name: value[:1] for name, value in pictures().items()})).check()
    with pytest.raises(ValidationError, match="share above 0"):
        ImageProbe.model_validate({"kind": "image_probe", "path": saved(), "test": 1.0})
    wide = {name: np.concatenate([value, value], -1) for name, value in pictures().items() if name != "labels"}
    with pytest.raises(RequestError, match="should be alike"):
        SegmentationProbe(path=saved(), test=saved("wide", **wide)).check()


def test_features_are_those_of_the_model_image_by_image(saved: Callable[..., str]) -> None:
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=2,
        num_channels=1,
    )
    model = ViTModel(config, add_pooling_layer=False).train()
    items = ImageProbe(path=saved()).items()[0]
    whole, patches = features(ImageSubject(model, batch_images=7), items)
    assert whole.shape == (len(items), 16) and patches.shape == (len(items), 4, 4, 16) and model.training
    model.eval()
    for number in (0, 9):
        values = torch.from_numpy(items[number].pixels).float()[None] / 127.5 - 1
        with torch.no_grad():
            states = model(pixel_values=values).last_hidden_state[0]
        torch.testing.assert_close(whole[number], states[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(patches[number, 2, 1], states[1 + 2 * 4 + 1], atol=1e-5, rtol=1e-4)
    three = ViTModel(ViTConfig(**{**config.to_dict(), "num_channels": 3}), add_pooling_layer=False)
    with pytest.raises(RequestError, match=r"8 x 8 pixels and 1 channels.*3 channels"):
        features(ImageSubject(three), items)
    large = ViTModel(ViTConfig(**{**config.to_dict(), "patch_size": 3, "image_size": 9}), add_pooling_layer=False)
    with pytest.raises(RequestError, match="whole patches of 3 x 3"):
        features(ImageSubject(large), items)
