"""Learner: the model with the numbers that are trained: fp32 masters, the precision it computes in, its gradient.

In `fp32` and `autocast` the model's own parameters are the masters. In `bf16` the model computes with bf16 weights
while fp32 masters are what the optimizer moves and a checkpoint holds; gradients of micro-batches are summed in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from foretrain.batch import Batch
from foretrain.distributed import Group, like, shard
from foretrain.errors import RequestError
from foretrain.models.roles import Role, parameter_roles

Precision = Literal["fp32", "bf16", "autocast"]


class Learner:
    """A model in training.

    Attributes:
        model: what forward passes run through.
        roles: role of every trained parameter, by name.
        masters: the fp32 parameters the optimizer moves, by name; `masters[name].grad` is the gradient of the step.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        group: Group,
        strategy: Literal["replicate", "shard"] = "replicate",
    ) -> None:
        self.group = group
        self.precision = precision
        self.model = model.to(group.device)
        self.roles: dict[str, Role] = {}
        self.masters: dict[str, nn.Parameter] = {}
        self._frozen: dict[str, nn.Parameter] = {}
        # Under bf16, what the model computes with: copies of the masters, and of what is frozen.
        self._copies: dict[str, nn.Parameter] = {}
        self._frozen_copies: dict[str, nn.Parameter] = {}
        roles = parameter_roles(model)
        self.sharded = strategy == "shard" and group.world > 1
        if self.sharded:
            shard(model, transformer_blocks(model), torch.bfloat16 if precision == "bf16" else None)
        self._train(dict(model.named_parameters()), roles)

    def adopt(self, module: nn.Module, prefix: str) -> None:
        """Train a module that an objective owns (a head) with the model; its parameters are named `prefix.NAME`."""
        module.to(self.group.device)
        named = {f"{prefix}.{name}": parameter for name, parameter in module.named_parameters()}
        self._train(named, {f"{prefix}.{name}": role for name, role in parameter_roles(module).items()})

    def _train(self, named: dict[str, nn.Parameter], roles: dict[str, Role]) -> None:
        trained = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        frozen = {name: parameter for name, parameter in named.items() if not parameter.requires_grad}
        self.roles |= {name: roles[name] for name in trained}
        if self.precision == "bf16" and not self.sharded:
            self._copies |= trained
            self._frozen_copies |= frozen
            trained, frozen = _fp32_copies(trained), _fp32_copies(frozen)
            # Parameters only: buffers such as rotary frequencies lose their meaning in bf16.
            for parameter in named.values():
                parameter.data = parameter.data.to(torch.bfloat16)
        self.masters |= trained
        self._frozen |= frozen

    def autocast(self) -> Any:
        """The context that forward passes run in."""
        if self.precision == "autocast":
            return torch.autocast(self.group.device.type, torch.bfloat16)
        return nullcontext()

    def zero_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.masters.values():
            parameter.grad = None

    def sum_ranks(self, now: bool) -> None:
        """Say whether the next backward pass is the last of its gradient, the one that sums over ranks (FSDP2 only)."""
        if self.sharded:
            self.model.set_requires_gradient_sync(now)  # type: ignore[operator]

    def settle(self) -> None:
        """After forward passes without a backward: give gathered weights back to their shards (FSDP2 only)."""
        if self.sharded:
            self.model.reshard()  # type: ignore[operator]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """For forward passes without a backward: eval mode, and nothing compiled, since their shapes vary."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            self.model.train(training)
            self.settle()

    def collect(self) -> None:
        """Add the gradients of one backward pass to the masters'."""
        for name, copy in self._copies.items():
            if copy.grad is None:
                continue
            master = self.masters[name]
            if master.grad is None:
                master.grad = copy.grad.float()
            else:
                master.grad += copy.grad
            copy.grad = None

    def gradient(self) -> dict[str, Tensor]:
        """The summed gradient over all ranks, by name, once every backward pass of it is done."""
        gradients = {name: parameter.grad for name, parameter in self.masters.items() if parameter.grad is not None}
        if not self.sharded:
            self.group.sum_tensors(gradients.values())
            return gradients
        # FSDP2 has averaged its own; what an objective owns is not sharded and gets the same average.
        own = [gradient for gradient in gradients.values() if not isinstance(gradient, DTensor)]
        self.group.sum_tensors(own)
        for gradient in own:
            gradient /= self.group.world
        return gradients

    def gradient_of(
        self, loss: Callable[[Batch], Tensor], pieces: Sequence[Batch], names: Sequence[str]
    ) -> tuple[dict[str, Tensor], float]:
        """The gradient of another loss than that of the step, over all ranks; the step's own is left as it is.

        It is taken in eval mode and at the fp32 masters, so that it can be compared with others.

        Args:
            loss: of one piece, on this rank: pieces and ranks are summed. A rank gives as many pieces as the others.
            pieces: batches, one forward pass each.
            names: parameters to differentiate by; below the first of them nothing is kept for the backward pass.

        Returns:
            The gradient, float32, by name; and the sum of the losses over pieces and ranks.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.group.device)
        with self._apart(names), self.exact(), self.evaluating():
            for number, piece in enumerate(pieces):
                self.sum_ranks(number == len(pieces) - 1)
                with self.autocast():
                    value = loss(piece)
                # FSDP2 averages gradients over ranks where the plain path sums them.
                (value * (self.group.world if self.sharded else 1)).backward()
                self.collect()
                total += value.detach()
            found = self.gradient()
            gradient = {
                name: found[name].detach().float() if name in found else torch.zeros_like(self.masters[name])
                for name in names
            }
        return gradient, self.group.sum(total)[0]

    def derivative(self, loss: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """This rank's gradient of a loss by the parameters named, itself differentiable; `.grad` is left alone.

        The loss was made inside `exact` where precisions differ. Parameters that it does not depend on have zeros.
        Not for sharded weights, which torch cannot differentiate twice.
        """
        computing = [self._copies.get(name, self.masters[name]) for name in names]
        found = torch.autograd.grad(loss, computing, create_graph=True, materialize_grads=True)
        return dict(zip(names, found, strict=True))

    @contextmanager
    def _apart(self, names: Sequence[str]) -> Iterator[None]:
        """Only `names` require a gradient, and what the step has summed so far comes back afterwards."""
        held = {name: parameter.grad for name, parameter in self.masters.items()}
        chosen = set(names)
        # Sharded weights made their gathered copies once, as they were; those all go on requiring one.
        computing = {} if self.sharded else {**self.masters, **self._copies}
        self.zero_gradients()
        for name, parameter in computing.items():
            parameter.requires_grad_(name in chosen)
        try:
            yield
        finally:
            for parameter in computing.values():
                parameter.requires_grad_(True)
            for name, parameter in self.masters.items():
                parameter.grad = held[name]

    def install(self, gradient: Mapping[str, Tensor]) -> None:
        """Hand a gradient to the optimizer."""
        for name, parameter in self.masters.items():
            parameter.grad = gradient.get(name)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the computing weights up to date after the masters moved."""
        if self._copies:
            torch._foreach_copy_(list(self._copies.values()), [self.masters[name] for name in self._copies])

    @contextmanager
    def at(self, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
        """Compute at other weights (by name; the rest as they are), then restore today's from a saved copy."""
        if weights is None:
            yield
            return
        saved = {name: self.masters[name].detach().clone() for name in weights}
        self._move(weights)
        try:
            yield
        finally:
            self._move(saved)

    @torch.no_grad()
    def _move(self, weights: Mapping[str, Tensor]) -> None:
        self.settle()  # what is gathered of the former weights must not be computed with again
        for name, value in weights.items():
            self.masters[name].copy_(value)
        self.refresh()

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Compute with the fp32 masters themselves, for figures that should hold for the exported model.

        Weights sharded in bf16 have no fp32 whole to compute with: they stay as they are.
        """
        copies, whole = {**self._copies, **self._frozen_copies}, {**self.masters, **self._frozen}
        held, precision = {name: copy.data for name, copy in copies.items()}, self.precision
        self.precision = "fp32" if not self.sharded else precision
        for name, copy in copies.items():
            copy.data = whole[name].data
        try:
            yield
        finally:
            self.precision = precision
            for name, copy in copies.items():
                copy.data = held[name]

    def state_dict(self) -> dict[str, Tensor]:
        """Masters, frozen parameters and buffers, by name."""
        kept = self.model.state_dict().keys()
        buffers = {f"buffer.{name}": buffer for name, buffer in self.model.named_buffers() if name in kept}
        return {**{name: p.detach() for name, p in {**self.masters, **self._frozen}.items()}, **buffers}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave (whole tensors; each rank takes its shard)."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(like(state[name], tensor))
        for name, copy in self._frozen_copies.items():
            copy.copy_(self._frozen[name])
        self.refresh()

    def refuse_other(self, state: Mapping[str, Tensor]) -> None:
        """See that a state is that of a model like this one.

        Raises:
            RequestError: names or shapes differ; the message names the first that do.
        """
        mine = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if mine == given:
            return
        differ = [name for name in {**mine, **given} if mine.get(name) != given.get(name)]
        some = "; ".join(
            f"{name}: {list(given[name]) if name in given else 'none'} there, "
            f"{list(mine[name]) if name in mine else 'none'} here"
            for name in differ[:3]
        )
        raise RequestError(
            f"The weights to start from are those of another model: {len(differ)} of {len({**mine, **given})} "
            f"parameters differ ({some}). Write `model` and `parametrization` as in that run."
        )


def _fp32_copies(parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {
        name: nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
        for name, parameter in parameters.items()
    }


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: the members of its longest list of like modules."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])
