"""Built-in images: what they are, that they stay the same, and that colour alone does not give them away."""

from __future__ import annotations

import numpy as np
import pytest

from foretrain.errors import RequestError
from foretrain.images.builtin.digits import Digits
from foretrain.images.builtin.shapes import NAMES, SMALLEST, Shapes


def test_shapes_depend_on_seed_and_number_alone() -> None:
    few, many = list(Shapes(count=5).items()), list(Shapes(count=70).items())
    assert [item.key for item in few] == [item.key for item in many[:5]]
    assert len({item.key for item in many}) == 70
    assert not {item.key for item in many} & {item.key for item in Shapes(count=70, seed=1).items()}
    # Pixels of a release: a change of the drawing is a change of everybody's corpus.
    assert few[0].pixels.shape == (3, 32, 32) and few[0].pixels.dtype == np.uint8


def test_masks_are_where_the_shapes_are() -> None:
    """On a plain ground every pixel of one colour is background, and all of a shape's have another."""
    for item in Shapes(count=40, clutter=0, size=48).items():
        assert item.mask is not None
        ground = item.pixels[:, item.mask == 0]
        assert (ground == ground[:, :1]).all()
        shape = item.pixels[:, item.mask > 0]
        assert (shape != ground[:, :1]).any(0).all()


def test_areas_are_those_of_the_shapes() -> None:
    """Alone in their picture, areas lie between those of the smallest and the largest radius."""
    shares = {1: np.pi * 0.85**2, 2: 4 * 0.72**2, 3: 3 * np.sqrt(3) / 4, 4: np.pi * (1 - 0.55**2), 5: 4 * 0.3 * 1.6}
    seen = set()
    for item in Shapes(count=300, size=96).items():
        assert item.mask is not None
        classes = np.unique(item.mask[item.mask > 0])
        if len(classes) == 1 and (item.mask > 0).sum() < 2 * shares[int(classes[0])] * (SMALLEST * 96) ** 2:
            area = (item.mask > 0).sum() / 96**2
            assert area > 0.9 * shares[int(classes[0])] * SMALLEST**2
            seen.add(int(classes[0]))
    assert seen == {1, 2, 3, 4, 5}


def test_the_label_is_the_shape_with_the_most_pixels() -> None:
    counted = 0
    for item in Shapes(count=200).items():
        assert item.mask is not None and item.label is not None
        classes, sizes = np.unique(item.mask[item.mask > 0], return_counts=True)
        if len(classes) == 1:
            assert item.label == classes[0] - 1
            counted += 1
        assert item.label + 1 in classes
        # Two shapes of one class may together have more pixels than the largest shape.
        assert sizes[classes == item.label + 1] * 3 >= sizes.max()
    assert counted > 20
    assert {item.label for item in Shapes(count=60, classes=2).items()} == {0, 1}
    assert len(NAMES) == 6


def test_colour_alone_does_not_tell_the_class() -> None:
    """A nearest mean of colour statistics is right about as often as chance, and so it is for background pixels."""
    items = list(Shapes(count=1000).items())
    colours = np.array([np.r_[item.pixels.mean((1, 2)), item.pixels.std((1, 2))] for item in items])
    labels = np.array([item.label for item in items])
    means = np.array([colours[:700][labels[:700] == label].mean(0) for label in range(5)])
    told = np.abs(colours[700:, None] - means[None]).sum(-1).argmin(1)
    assert (told == labels[700:]).mean() < 0.3


def test_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed (extra [vision])")
    known = datasets.load_digits()
    items = list(Digits(scale=2).items())
    assert len(items) == 1797 and [item.label for item in items] == known.target.tolist()
    for number in (0, 7, 1796):
        assert items[number].pixels.shape == (1, 16, 16)
        assert np.abs(items[number].pixels[0, ::2, 1::2] / 255 - known.images[number] / 16).max() < 0.003
    train, test = (list(Digits(part=part).items()) for part in ("train", "test"))
    assert len(train) + len(test) == 1797 and 0.15 < len(test) / 1797 < 0.25
    assert not {item.key for item in train} & {item.key for item in test}


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(RequestError, match=r"pip install 'foretrain\[vision\]'"):
        next(iter(Digits().items()))
