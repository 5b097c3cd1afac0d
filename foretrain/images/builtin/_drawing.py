"""Drawing: random numbers and textures for many pictures at once, each picture from a key of its own.

Shapes of arrays: n pictures, s pixels a side; colours and pictures are float64 in [0, 1], [n, 3, s, s].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Dice:
    """Random numbers for n pictures; those of a picture depend on its key and on how many were drawn before.

    They rest on the raw output of Philox, which numpy keeps the same across versions (of its generators it does not).
    """

    def __init__(self, keys: list[int]) -> None:
        self._streams = [np.random.Philox(key=key) for key in keys]
        self.pictures = len(keys)

    def uniform(self, count: int = 1) -> Floats:
        """[n, count] in [0, 1)."""
        raw = np.stack([stream.random_raw(count) for stream in self._streams])
        return (raw >> np.uint64(11)) * 2.0**-53

    def between(self, low: float, high: float) -> Floats:
        """[n] in [low, high)."""
        return low + (high - low) * self.uniform()[:, 0]

    def below(self, count: int) -> NDArray[np.int64]:
        """Whole numbers [n] from 0 to `count - 1`."""
        return np.floor(self.uniform()[:, 0] * count).astype(np.int64)

    def colour(self) -> Floats:
        """[n, 3, 1, 1], away from black and white."""
        return 0.15 + 0.7 * self.uniform(3)[..., None, None]

    def noise(self, size: int) -> Floats:
        """[n, 3, size, size], independent pixels in [0, 1)."""
        words = -(-3 * size * size // 8)
        raw = np.stack([stream.random_raw(words) for stream in self._streams])
        levels = raw.astype("<u8").view(np.uint8)[:, : 3 * size * size]
        return levels.reshape(self.pictures, 3, size, size) / 256


class Grid:
    """Places of the pixels of a picture, in [-0.5, 0.5]: `x` to the right and `y` downwards, [s, s]."""

    def __init__(self, size: int) -> None:
        places = (np.arange(size) + 0.5) / size - 0.5
        self.y, self.x = np.meshgrid(places, places, indexing="ij")

    def along(self, angle: Floats) -> Floats:
        """How far each pixel lies in a direction (radians [n]), [n, s, s]."""
        return np.cos(angle)[:, None, None] * self.x + np.sin(angle)[:, None, None] * self.y

    def slope(self, dice: Dice) -> Floats:
        """A plane that rises in a random direction, about -0.5 to 0.5, [n, s, s]."""
        return self.along(dice.between(0, 2 * np.pi))


def gratings(dice: Dice, grid: Grid, count: int) -> Floats:
    """Sum of sine waves of random direction, length and colour, about -0.4 to 0.4, [n, 3, s, s]."""
    total = np.zeros((dice.pictures, 3, *grid.x.shape))
    for _ in range(count):
        waves = 2 * np.pi * dice.between(1, 8)[:, None, None] * grid.along(dice.between(0, np.pi))
        wave = np.sin(waves + dice.between(0, 2 * np.pi)[:, None, None])
        total += wave[:, None] * (0.8 * dice.uniform(3) - 0.4)[..., None, None]
    return total / np.sqrt(count)


def blobs(dice: Dice, grid: Grid, picture: Floats, clutter: float) -> Floats:
    """A picture with irregular patches of another colour and texture."""
    field = np.zeros((dice.pictures, *grid.x.shape))
    for _ in range(4):
        waves = 2 * np.pi * dice.between(0.6, 2.5)[:, None, None] * grid.along(dice.between(0, 2 * np.pi))
        field += np.sin(waves + dice.between(0, 2 * np.pi)[:, None, None])
    patches = (field > 1.2)[:, None]
    other = dice.colour() + clutter * gratings(dice, grid, 2)
    return np.where(patches, (1 - clutter) * picture + clutter * other, picture)


def lines(dice: Dice, grid: Grid, picture: Floats, clutter: float, count: int = 4) -> Floats:
    """A picture with straight lines across it, one to two pixels wide."""
    for _ in range(count):
        across = grid.along(dice.between(0, np.pi)) - dice.between(-0.5, 0.5)[:, None, None]
        on = np.abs(across) < dice.between(0.5, 1.1)[:, None, None] / grid.x.shape[0]
        there = on[:, None] & (dice.uniform()[:, 0] < 0.75)[:, None, None, None]
        picture = np.where(there, (1 - clutter) * picture + clutter * dice.colour(), picture)
    return picture


def outline(dice: Dice, grid: Grid, shape: NDArray[np.int64], radius: Floats) -> Bools:
    """The pixels [n, s, s] inside a shape (0 circle, 1 square, 2 triangle, 3 ring, 4 cross) at a random place.

    Args:
        dice: chooses place and rotation; the shape lies inside the picture.
        grid: the picture.
        shape: which one, [n].
        radius: of a circle around it, as a share of the picture, [n].
    """
    room = np.maximum(0.5 - radius, 0)
    place = (2 * dice.uniform(2) - 1) * room[:, None]
    angle = dice.between(0, 2 * np.pi)
    x, y = grid.x - place[:, 0, None, None], grid.y - place[:, 1, None, None]
    cosine, sine, r = (value[:, None, None] for value in (np.cos(angle), np.sin(angle), radius))
    u, v = cosine * x + sine * y, cosine * y - sine * x
    distance, wide, high = np.hypot(x, y), np.abs(u), np.abs(v)
    third = np.sqrt(3) / 2
    bars = np.minimum(wide, high) <= 0.3 * r
    all_shapes = [
        distance <= 0.85 * r,
        np.maximum(wide, high) <= 0.72 * r,
        np.maximum.reduce([-v, third * u + v / 2, -third * u + v / 2]) <= r / 2,
        (distance <= r) & (distance >= 0.55 * r),
        bars & (np.maximum(wide, high) <= 0.95 * r),
    ]
    return np.select([(shape == number)[:, None, None] for number in range(len(all_shapes))], all_shapes)
