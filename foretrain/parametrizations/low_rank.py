"""Every weight a product of two thin matrices."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.models.surgery import RebuiltLinear, drawn, reparametrize
from foretrain.parametrizations.base import Parametrization
from foretrain.parts import Facts
from foretrain.section import Count, Number


class LowRank(Parametrization):
    """W = alpha / r * B A, with B [out, r] and A [r, in], both drawn as A of LoRA is; nothing else stands beside it.

    Trained from the start, with no frozen full matrix below: what `lora` and `sltrain` are to be compared with. A zero
    B would make every layer zero, so both factors start at random (uniform, of deviation 1 / sqrt(3 * columns)).
    """

    kind: Literal["low_rank"] = "low_rank"
    rank: Count | None = Field(None, ge=1)
    """Columns of B; unset: a quarter of the smaller side of each weight."""
    alpha: Number = Field(32.0, gt=0)
    """The product is multiplied by alpha / rank."""
    targets: str = "matrices"
    """Which of the linear layers inside the blocks: `matrices` (all), `last:2`, `re:(q|v)_proj`; joined by `+`."""
    facts: ClassVar[Facts] = Facts(
        paper="Scalable Parameter and Memory Efficient Pretraining for LLM: Recent Algorithmic Advances and "
        "Benchmarking",
        arxiv="2505.22922",
        year=2025,
        answers="which numbers are trained? two thin factors of every weight",
        overhead="the product, in forward and backward",
    )

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        def factory(path: str, layer: nn.Module) -> nn.Module:
            return LowRankLinear(layer, rank_of(self.rank, path, layer), self.alpha, seed_from(seed, "low_rank", path))

        return reparametrize(model, self.targets, factory)


class LowRankLinear(RebuiltLinear):
    """A linear layer of `LowRank`; parameters `up` (B) and `down` (A)."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float, seed: int) -> None:
        super().__init__(layer)
        self.scale = alpha / rank
        self.up, self.down = (
            factor(shape, layer, seed_from(seed, name))
            for name, shape in (("up", (self.out_features, rank)), ("down", (rank, self.in_features)))
        )

    def numbers(self) -> tuple[Tensor, ...]:
        return self.up, self.down

    def build(self, *numbers: Tensor) -> Tensor:
        up, down = numbers
        return (self.scale * up) @ down


def factor(shape: tuple[int, int], layer: nn.Module, seed: int) -> nn.Parameter:
    """A thin matrix as LoRA draws its A (Kaiming's uniform rule with a = sqrt 5): uniform up to 1 / sqrt(columns)."""
    generator, bound = torch.Generator().manual_seed(seed), 1 / math.sqrt(shape[1])
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return nn.Parameter(drawn(shape, weight, lambda made: made.uniform_(-bound, bound, generator=generator)))


def rank_of(rank: int | None, path: str, layer: nn.Module) -> int:
    """The rank in a layer: as asked for, or a quarter of its smaller side.

    Raises:
        RequestError: it is more than the layer's smaller side.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    smaller = min(weight.shape)
    if rank is None:
        return max(1, smaller // 4)
    if rank > smaller:
        raise RequestError(
            f"parametrization.rank: {rank} is more than the smaller side of {path}, whose weight is "
            f"{' x '.join(map(str, weight.shape))}; a rank above {smaller} adds nothing."
        )
    return rank
