"""Every weight a low-rank product plus a sparse matrix whose support is random and never changes."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from foretrain.context import Context
from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.models.pretrained import Pretrained
from foretrain.models.surgery import RebuiltLinear, drawn, reparametrize
from foretrain.parametrizations.base import Parametrization
from foretrain.parametrizations.low_rank import factor, rank_of
from foretrain.parts import Facts
from foretrain.section import Count, Number


class SLTrain(Parametrization):
    """W = alpha / r * B A + S, where S is sparse, with a random support fixed at the start.

    Pre-training from scratch: A [r, in] is drawn as in LoRA, B [out, r] is zero, the entries of S are uniform up to
    1 / sqrt(in), so that at the first step each layer is its sparse matrix alone. The support is the first
    density * out * in places of a random permutation, drawn from the seed and the layer's path and kept in checkpoints
    (int32). Biases start uniform up to 1 / sqrt(out). Embeddings, norms and the output layer stay as they are.

    Neither W nor its gradient is kept: the backward pass makes W again. So there are fewer numbers, moments and
    gradients, and more FLOPs: the product B A in both passes. Weight decay, where there is any, acts on A, B and the
    entries, which is not weight decay of W; the paper trains without.
    """

    kind: Literal["sltrain"] = "sltrain"
    rank: Count | None = Field(None, ge=1)
    """Columns of B; unset: a quarter of the smaller side of each weight, as most of the published models have it."""
    alpha: Number = Field(32.0, gt=0)
    """The low-rank product is multiplied by alpha / rank; published: 32 (60M parameters), 16 (to 350M), 8 (above)."""
    density: Number = Field(0.03, gt=0, le=1)
    """Share of entries in the support of the sparse matrix (published: 0.03, and 0.05 at 7B)."""
    targets: str = "matrices"
    """Which of the linear layers inside the blocks: `matrices` (all), `last:2`, `re:mlp`; joined by `+`."""
    facts: ClassVar[Facts] = Facts(
        paper="SLTrain: a sparse plus low-rank approach for parameter and memory efficient pretraining",
        arxiv="2406.02214",
        year=2024,
        answers="which numbers are trained? a low-rank and a sparse part of every weight",
        overhead="the low-rank product, in forward and backward; 4 bytes per sparse entry",
    )

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        def factory(path: str, layer: nn.Module) -> nn.Module:
            rank, own = rank_of(self.rank, path, layer), seed_from(seed, "sltrain", path)
            return SparseLowRankLinear(layer, rank, self.alpha, self.density, own, path)

        return reparametrize(model, self.targets, factory)

    def setup(self, context: Context) -> None:
        if isinstance(context.recipe.model, Pretrained):
            raise RequestError(
                f"parametrization: sltrain trains from scratch, and would throw away the weights of "
                f"'{context.recipe.model.path}'. Give the model as a size (kind: llama), or train it on with "
                "parametrization `lora` or `full`."
            )


class SparseLowRankLinear(RebuiltLinear):
    """A linear layer of `SLTrain`: parameters `up` (B), `down` (A) and `values`; buffer `support`, int32 [entries]."""

    support: Tensor

    def __init__(self, layer: nn.Module, rank: int, alpha: float, density: float, seed: int, path: str) -> None:
        super().__init__(layer, entries=("values",))
        size = self.out_features * self.in_features
        count, weight = int(density * size), layer.weight
        assert isinstance(weight, Tensor)
        if not count or size >= 2**31:
            raise RequestError(
                f"parametrization.density: {density:g} of the {size:,} entries of {path} are "
                + ("none; raise it." if not count else "more places than int32 can count; leave the layer out.")
            )
        self.scale = alpha / rank
        self.up = nn.Parameter(drawn((self.out_features, rank), weight, lambda made: made.zero_()))
        self.down = factor((rank, self.in_features), layer, seed_from(seed, "down"))
        bound = 1 / math.sqrt(self.in_features)
        generator = torch.Generator().manual_seed(seed_from(seed, "values"))
        self.values = nn.Parameter(drawn((count,), weight, lambda v: v.uniform_(-bound, bound, generator=generator)))
        self.register_buffer("support", drawn((count,), weight, lambda made: _support(made, size, seed), torch.int32))
        if self.bias is not None and not self.bias.is_meta:
            bound = 1 / math.sqrt(self.out_features)
            generator = torch.Generator().manual_seed(seed_from(seed, "bias"))
            with torch.no_grad():
                self.bias.uniform_(-bound, bound, generator=generator)

    def numbers(self) -> tuple[Tensor, ...]:
        return self.up, self.down, self.values, self.support

    def build(self, *numbers: Any) -> Tensor:
        up, down, values, support = numbers
        weight: Tensor = (self.scale * up) @ down  # the scale is the product's alone
        # Into the fresh product: nothing that the backward pass of the product needs is written over.
        weight.view(-1).scatter_add_(0, support.long(), values.to(weight.dtype))
        return weight


def _support(made: Tensor, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed_from(seed, "support"))
    made.copy_(torch.randperm(size, generator=generator)[: len(made)].sort().values)
