"""Sparse pre-training, dense fine-tuning: a random mask over every weight, released at some step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from foretrain.context import Context
from foretrain.distributed import like
from foretrain.errors import RequestError, unknown_name
from foretrain.hashing import seed_from
from foretrain.models.surgery import RebuiltLinear, drawn, reparametrize
from foretrain.moving import forget
from foretrain.parametrizations.base import Parametrization
from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.spans import Span, interval, lead

if TYPE_CHECKING:
    from typing_extensions import Self


class SPDF(Parametrization):
    """y = x (m * W)^T with a random mask m per weight that is fixed until it is released, and 1 from then on.

    A share `sparsity` of the entries of every linear layer inside the blocks is off, the same share in each, exactly;
    embeddings, norms, biases and the output layer are dense. The mask is in the product, so gradients are masked
    whatever takes them, and the weights are masked again after each step of the optimizer, so that neither weight decay
    nor an update that mixes entries (Muon) revives one.

    At the release the weights are kept; those that were off start at 0 and are trained like any others. The optimizer's
    state begins anew for all weights, and the learning rate rises from 0 over `ramp`.

    No CPU or GPU is spared anything by such a mask: `flops` are the executed ones, and `ideal_flops` beside them leaves
    out the products with masked entries in each step's own forward and backward pass.
    """

    kind: Literal["spdf"] = "spdf"
    sparsity: Number = Field(0.75, ge=0, lt=1)
    """Share of entries that are off (published: 0.5 and 0.75)."""
    release: Span | None = Field(None, gt=0)
    """When all entries are trained: a share of the run or a step; unset (and no `stage`): never."""
    stage: str | None = None
    """The stage of the recipe with whose first step all entries are trained, in place of `release`."""
    ramp: Span = Field(0.02, ge=0)
    """How long the learning rate rises to what the schedule says after the release: a share of the run or steps; 0 for
    a stage whose own schedule warms up."""
    rescale: bool = False
    """Whether what is left of the starting weights is divided by sqrt(1 - sparsity), so that outputs keep their
    variance (whether the paper does so was not found)."""
    targets: str = "matrices"
    """Which of the linear layers inside the blocks: `matrices` (all), `last:2`, `re:mlp`; joined by `+`."""
    facts: ClassVar[Facts] = Facts(
        paper="SPDF: Sparse Pre-training and Dense Fine-tuning for Large Language Models",
        arxiv="2303.10464",
        year=2023,
        answers="which numbers are trained? a random few of every weight first, all of them later",
        overhead="one product by the mask per weight and pass; a byte per masked weight",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"sparsity": 0.0}
    _context: Context | None = PrivateAttr(None)
    _released: int | None = PrivateAttr(None)  # the step of the release, once it is done
    _unspent: int = PrivateAttr(0)
    _spared: int = PrivateAttr(0)

    @model_validator(mode="after")
    def _one_release(self) -> Self:
        if self.release is not None and self.stage is not None:
            raise ValueError("`release` and `stage` both say when the mask is released; leave one out")
        return self

    def apply(self, model: nn.Module, seed: int) -> nn.Module:
        def factory(path: str, layer: nn.Module) -> nn.Module:
            return MaskedLinear(layer, self.sparsity, self.rescale, seed_from(seed, "spdf", path))

        return reparametrize(model, self.targets, factory)

    def setup(self, context: Context) -> None:
        self._context = context
        tokens = context.recipe.batch.tokens // context.length * context.length
        off = sum(layer.mask.numel() - int(layer.mask.sum()) for layer in self._layers().values())
        self._spared = 6 * tokens * off  # 2 FLOPs forward and 4 backward per token and entry
        stages = [period.name for period in context.timeline.stages if context.timeline.staged]
        if self.stage is not None and self.stage not in stages:
            raise RequestError(f"parametrization.stage: {unknown_name('stage', self.stage, stages)}")

    def before_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        first = self._first_dense()
        if first is not None and step >= first and self._released is None:
            self._released = step
            # With nothing masked there is nothing to release, and the run is that of `full`.
            if self.sparsity:
                for layer in self._layers().values():
                    layer.mask.fill_(True)
                forget(optimizer)
        self._unspent += self._spared if self._released is None else 0

    def rate(self, step: int) -> float:
        since = self._released
        if since is None or step < since or self._context is None or not self.sparsity:
            return 1.0
        ramp = lead(self.ramp, self._context.total_steps)
        return min(1.0, (step - since + 1) / ramp) if ramp else 1.0

    @torch.no_grad()
    def project(self) -> None:
        if self._context is None or self._released is not None:
            return
        masters = self._context.weights
        for path, layer in self._layers().items():
            weight = masters[f"{path}.weight"]
            weight.mul_(like(layer.mask, weight))

    def unspent(self) -> int:
        return self._unspent

    def state_dict(self) -> dict[str, Any]:
        return {"released": self._released, "unspent": self._unspent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._released, self._unspent = state["released"], state["unspent"]

    def _first_dense(self) -> int | None:
        """The first step at which all entries are trained."""
        context = self._context
        if context is None:
            return None
        if self.stage is not None:
            return next(period.first for period in context.timeline.stages if period.name == self.stage)
        return None if self.release is None else interval(self.release, context.total_steps)

    def _layers(self) -> dict[str, MaskedLinear]:
        assert self._context is not None
        modules = self._context.model.named_modules()
        return {path: module for path, module in modules if isinstance(module, MaskedLinear)}


class MaskedLinear(RebuiltLinear):
    """A linear layer of `SPDF`: parameter `weight`, as the plain layer stores it; buffer `mask`, bool, of its shape."""

    mask: Tensor

    def __init__(self, layer: nn.Module, sparsity: float, rescale: bool, seed: int) -> None:
        super().__init__(layer)
        weight = layer.weight
        assert isinstance(weight, nn.Parameter)
        self.weight = weight
        kept = weight.numel() - round(sparsity * weight.numel())
        mask = drawn(weight.shape, weight, lambda made: _mask(made, kept, seed), torch.bool)
        self.register_buffer("mask", mask)
        with torch.no_grad():
            weight.mul_(mask)
            if rescale:
                weight.div_(math.sqrt(1 - sparsity))

    def numbers(self) -> tuple[Tensor, ...]:
        return self.weight, self.mask

    def build(self, *numbers: Tensor) -> Tensor:
        weight, mask = numbers
        masked = weight * mask
        return masked.T if self.transposed else masked


def _mask(made: Tensor, kept: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    made.fill_(False).view(-1)[torch.randperm(made.numel(), generator=generator)[:kept]] = True
