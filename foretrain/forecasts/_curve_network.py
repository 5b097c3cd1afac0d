"""The network that knows the prior over learning curves: from what was seen of one, the distribution of the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretrain.forecasts._curve_prior import LENGTH

BUCKETS = 100
_HALF = 0.6744897501960817
"""A half-normal of scale 1 has half of its mass up to here."""


class BarDistribution:
    """Densities that are constant within buckets; the two at the ends have half-normal tails.

    Args:
        borders: of the buckets, rising, [buckets + 1]. Half of the mass of an end bucket lies within its width.
    """

    def __init__(self, borders: Tensor) -> None:
        self.borders = borders
        self.widths = borders[1:] - borders[:-1]

    def log_density(self, logits: Tensor, values: Tensor) -> Tensor:
        """Of `values` [...] under `logits` [..., buckets]."""
        place = torch.bucketize(values.contiguous(), self.borders[1:-1].contiguous(), right=True)
        inside = -self.widths.log()[place]
        low, high = self.widths[0] / _HALF, self.widths[-1] / _HALF
        inside = torch.where(place == 0, _half_normal(self.borders[1] - values, low), inside)
        inside = torch.where(place == len(self.widths) - 1, _half_normal(values - self.borders[-2], high), inside)
        return functional.log_softmax(logits, -1).gather(-1, place[..., None]).squeeze(-1) + inside

    def quantiles(self, logits: Tensor, levels: Tensor) -> Tensor:
        """The values below which shares `levels` [k] of the mass lie: [k, ...]; linear within a bucket."""
        mass = functional.softmax(logits.double(), -1)
        ends = mass.cumsum(-1)
        found = []
        for level in levels.double():
            place = (ends < level).sum(-1).clamp_max(len(self.widths) - 1)
            own = mass.gather(-1, place[..., None]).squeeze(-1).clamp_min(1e-300)
            share = ((level - (ends.gather(-1, place[..., None]).squeeze(-1) - own)) / own).clamp(1e-6, 1 - 1e-6)
            value = self.borders.double()[place] + share * self.widths.double()[place]
            low = self.borders[1] - self.widths[0] / _HALF * _within(1 - share)
            high = self.borders[-2] + self.widths[-1] / _HALF * _within(share)
            value = torch.where(place == 0, low, value)
            found.append(torch.where(place == len(self.widths) - 1, high, value))
        return torch.stack(found)


def _half_normal(distance: Tensor, scale: Tensor) -> Tensor:
    return 0.5 * math.log(2 / math.pi) - scale.log() - 0.5 * (distance / scale) ** 2


def _within(share: Tensor) -> Tensor:
    """How far a half-normal of scale 1 reaches with this share of its mass."""
    return torch.special.ndtri((1 + share) / 2)


class CurveNetwork(nn.Module):
    """A transformer without positions: seen points attend to one another, each asked point to them and to itself.

    Args:
        width: of its tokens.
        layers: of the encoder.
        heads: of each layer.
    """

    borders: Tensor

    def __init__(self, width: int = 64, layers: int = 3, heads: int = 2) -> None:
        super().__init__()
        self.of_x, self.of_y = nn.Linear(1, width), nn.Linear(1, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, BUCKETS))
        self.register_buffer("borders", torch.linspace(0, 1, BUCKETS + 1))

    @property
    def bars(self) -> BarDistribution:
        """What its logits mean."""
        return BarDistribution(self.borders)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits [batch, points - seen, buckets] for the points behind the seen ones.

        Args:
            x: of all points, seen ones first, [batch, points]; 1 to `LENGTH`.
            y: of the seen ones, [batch, seen]; within [0, 1] but for noise.
        """
        seen = y.shape[1]
        tokens = self.of_x(_centred(x / (LENGTH + 1))[..., None])
        tokens = torch.cat([tokens[:, :seen] + self.of_y(_centred(y)[..., None]), tokens[:, seen:]], 1)
        points = x.shape[1]
        hidden = torch.ones(points, points, dtype=torch.bool, device=x.device)
        hidden[:, :seen] = False
        hidden.fill_diagonal_(False)
        return self.head(self.encoder(tokens, mask=hidden)[:, seen:])


def _centred(value: Tensor) -> Tensor:
    """A uniform number in [0, 1] with mean 0 and variance 1."""
    return (value - 0.5) * math.sqrt(12)
