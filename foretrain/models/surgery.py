"""Surgery: linear layers of a model replaced by layers whose weight is made of other numbers, and put back.

`reparametrize(model, where, factory)` replaces, `restore(model)` puts plain layers back that compute the same. A
replacement is a `RebuiltLinear`: it says what numbers it has and how a weight is made of them (`build`), and gets
forward, backward, merging and roles from here. The weight is made at each use and again in the backward pass, so that
neither it nor its gradient is ever kept.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from foretrain.errors import RequestError, nearest
from foretrain.models.roles import parameter_roles, select, stand_in

N = TypeVar("N", bound=nn.Module)


class RebuiltLinear(nn.Module):
    """A linear layer (or GPT-2's transposed one) whose weight [out, in] is `build(*numbers)`.

    A subclass makes its parameters and buffers in its constructor and names their order in `numbers`. `build` uses its
    arguments alone, differentiably.

    Args:
        layer: the plain layer in whose place it stands; its bias goes on being trained.
        entries: names of parameters that are entries of a matrix without being one (`Role.entries`).
    """

    def __init__(self, layer: nn.Module, entries: Sequence[str] = ()) -> None:
        super().__init__()
        weight, self.transposed = layer.weight, isinstance(layer, Conv1D)
        assert isinstance(weight, Tensor)
        self.out_features, self.in_features = reversed(weight.shape) if self.transposed else weight.shape
        self.bias: Any = layer.bias
        self.training = layer.training
        stand_in(self, entries)

    @abstractmethod
    def numbers(self) -> tuple[Tensor, ...]:
        """The tensors that `build` takes."""

    @abstractmethod
    def build(self, *numbers: Tensor) -> Tensor:
        """The weight, [out, in]."""

    def dense(self) -> Tensor:
        """The weight that the numbers make now, [out, in]."""
        return self.build(*self.numbers())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _product()(self.build, x, self.bias, *self.numbers())
        return result

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """A plain layer that computes the same."""
        weight = self.dense()
        has_bias = self.bias is not None
        layer: Any
        with torch.device("meta"):
            if self.transposed:
                layer, weight = Conv1D(self.out_features, self.in_features), weight.T
            else:
                layer = nn.Linear(self.in_features, self.out_features, bias=has_bias)
        layer.weight = nn.Parameter(weight.contiguous())
        if has_bias:
            layer.bias = self.bias
        return layer.train(self.training)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """x W^T + b, with W = build(*numbers) made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, build: Callable[..., Tensor], x: Tensor, bias: Tensor | None, *numbers: Tensor) -> Tensor:
        ctx.build, ctx.has_bias, ctx.autocast = build, bias is not None, _autocast(x.device.type)
        ctx.save_for_backward(x, *numbers)
        return F.linear(x, build(*numbers), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (dy,) = gradients
        x, *numbers = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        again = torch.is_grad_enabled()  # the gradient will be differentiated in its turn
        dx = db = None
        found: list[Tensor | None] = [None] * len(numbers)
        with ctx.autocast():
            if not again:
                numbers = [n.detach().requires_grad_(need) for n, need in zip(numbers, needs, strict=True)]
            with torch.enable_grad():
                weight = ctx.build(*numbers)
            flat = dy.reshape(-1, dy.shape[-1])
            if ctx.needs_input_grad[1]:
                dx = (flat @ (weight if again else weight.detach())).view(x.shape)
            if ctx.has_bias and ctx.needs_input_grad[2]:
                db = flat.sum(0)
            if any(needs):
                dw = flat.T @ x.reshape(-1, x.shape[-1])
                wanted = [n for n, need in zip(numbers, needs, strict=True) if need]
                made = iter(torch.autograd.grad(weight, wanted, dw.to(weight.dtype), create_graph=again))
                found = [next(made) if need else None for need in needs]
        return None, None if dx is None else dx.to(x.dtype), db, *found


def _autocast(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    """What makes the autocast of a forward pass anew in its backward pass, which torch runs without."""
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext
    return partial(torch.autocast, kind, dtype=torch.get_autocast_dtype(kind))


@cache
def _product() -> Any:
    """The product as a function that `torch.compile` leaves alone; made when it is used, as it imports the compiler."""
    return torch.compiler.disable(_Product.apply)


# Where ------------------------------------------------------------------------------------------------------------


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers inside the model's blocks, by path."""
    roles = {role.path: role for role in parameter_roles(model).values() if role.kind == "matrix"}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name in roles and roles[name].block is not None
    }


def chosen_layers(model: nn.Module, where: str, field: str = "targets") -> dict[str, nn.Module]:
    """The linear layers inside the blocks whose weights are in a subset of parameters (`roles.select`), by path.

    Raises:
        RequestError: the subset is no such word, or holds no linear layer; the message names the nearest ones.
    """
    layers, roles = linear_layers(model), parameter_roles(model)
    inside = {name: role for name, role in roles.items() if name.endswith(".weight") and role.path in layers}
    try:
        names = select(roles, where)
    except RequestError as error:
        if "re:" not in where or "regular expression" in str(error):
            raise RequestError(f"parametrization.{field}: {str(error).removeprefix('parameters: ')}") from error
        names = []
    found = {inside[name].path: layers[inside[name].path] for name in names if name in inside}
    if not found:
        leaves = {path.rpartition(".")[2] for path in layers}
        pattern = where.partition("re:")[2]
        guess = nearest(pattern, leaves)
        there = f"did you mean 're:{guess}'?" if guess else f"there are: {', '.join(sorted(leaves))}."
        raise RequestError(f"parametrization.{field}: '{where}' holds no linear layer inside the blocks; {there}")
    return found


# Surgery ----------------------------------------------------------------------------------------------------------


def reparametrize(model: N, where: str, factory: Callable[[str, nn.Module], nn.Module], field: str = "targets") -> N:
    """Replace the chosen linear layers, in place, each by what `factory(path, layer)` makes of it; returns the model.

    What takes a layer's place says so by `stand_in`, as `RebuiltLinear` does. Random numbers that it draws come from
    the seed and the path, so that every rank draws the same.

    Raises:
        RequestError: no linear layer is chosen.
    """
    for path, layer in chosen_layers(model, where, field).items():
        model.set_submodule(path, factory(path, layer))
    return model


def restore(model: N) -> N:
    """Put plain layers that compute the same in the place of the rebuilt ones, in place; returns the model."""
    for path, module in list(model.named_modules()):
        if isinstance(module, RebuiltLinear):
            model.set_submodule(path, module.plain())
    return model


def drawn(
    shape: Sequence[int], like: Tensor, draw: Callable[[Tensor], Any], dtype: torch.dtype | None = None
) -> Tensor:
    """A tensor of some shape beside another, filled by `draw`; of a skeleton only the shape."""
    made = torch.empty(tuple(shape), dtype=dtype or like.dtype, device=like.device)
    if not made.is_meta:
        draw(made)
    return made
