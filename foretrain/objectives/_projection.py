"""The projection head of self-distillation: what maps an image's features to scores of prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from foretrain.hashing import seed_from


class Projection(nn.Module):
    """Layers with GELU between them, a unit vector, and its cosines with prototypes.

    The last layer is weight-normed with its magnitudes at 1: only the direction of each prototype counts. Cosines are
    made in float32 whatever the rest computes in, since temperatures of a few hundredths magnify what bf16 leaves out.

    Args:
        width: of the features.
        hidden: width of the hidden layers.
        layers: linear layers before the last one.
        bottleneck: width of the unit vector.
        prototypes: number of prototypes.
        seed: of the weights at the start.
    """

    def __init__(self, width: int, hidden: int, layers: int, bottleneck: int, prototypes: int, seed: int) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (layers - 1), bottleneck]
        with torch.device("meta"):
            made = _interleaved([nn.Linear(a, b) for a, b in pairwise(sizes)])
            self.mlp = nn.Sequential(*made)
            self.last = nn.Linear(bottleneck, prototypes, bias=False)
        self.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed_from(seed, "projection"))
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def get_output_embeddings(self) -> nn.Module:
        """The last layer, whose parameters have the role of an output layer (no weight decay by default)."""
        return self.last

    def forward(self, features: Tensor, frozen: bool = False) -> Tensor:
        """Cosines float32 [items, prototypes] of features [items, width]; if `frozen`, the last layer doesn't learn."""
        reduced = self.mlp(features)
        with torch.autocast(features.device.type, enabled=False):
            directions = functional.normalize(self.last.weight.float(), dim=-1)
            unit = functional.normalize(reduced.float(), dim=-1)
            return functional.linear(unit, directions.detach() if frozen else directions)


def _interleaved(layers: Sequence[nn.Module]) -> list[nn.Module]:
    made: list[nn.Module] = []
    for layer in layers:
        made += [nn.GELU(), layer] if made else [layer]
    return made
