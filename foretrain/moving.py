"""Moving: what a step moves besides the stream, as a state that can be taken and put back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from foretrain import distributed
from foretrain.learner import Learner
from foretrain.parts import Part


class Moving:
    """Weights, the optimizer's state, and what parts keep that goes with them (an objective's teacher).

    Args:
        learner: holds the weights.
        optimizer: moves them.
        parts: by name, those whose state goes with the weights.
    """

    def __init__(self, learner: Learner, optimizer: torch.optim.Optimizer, parts: Mapping[str, Part]) -> None:
        self.learner, self.optimizer, self.parts = learner, optimizer, dict(parts)

    def take(self) -> dict[str, Any]:
        """A copy of it all; whole tensors (a collective call under sharding)."""
        state = {
            "model": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        return copied(distributed.whole(state) if self.learner.sharded else state)  # type: ignore[no-any-return]

    def put_back(self, state: Mapping[str, Any]) -> None:
        """What `take` gave, bit for bit, once: its tensors are used, and move at the next step."""
        self.learner.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Whatever is done inside is undone at the end. Gradients of the step so far are left alone."""
        held = {name: parameter.grad for name, parameter in self.learner.masters.items()}
        state = self.take()
        try:
            yield
        finally:
            self.put_back(state)
            for name, parameter in self.learner.masters.items():
                parameter.grad = held[name]


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> bool:
    """Restore an optimizer's state from whole tensors, each cut like the parameter it belongs to.

    The optimizer keeps the very tensors, where they need no cutting. Returns False, and leaves the optimizer new, where
    the state is of another kind of optimizer or other parameters.
    """
    own = optimizer.state_dict()
    if _parameter_names(own) != _parameter_names(state):
        return False
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        parameter = parameters[int(number)]
        cut[int(number)] = {
            name: distributed.like(value, parameter)
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for name, value in values.items()
        }
    optimizer.load_state_dict({"state": cut, "param_groups": own["param_groups"]})
    return True


def forget(optimizer: torch.optim.Optimizer, names: Collection[str] | None = None) -> None:
    """Let the state of some parameters (all, if None) begin anew: moments, and their count of steps."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            if names is None or name in names:
                optimizer.state.pop(parameter, None)


def second_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's running means of squared gradients, without their bias, by parameter name; empty where there are none."""
    found: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            state = optimizer.state.get(parameter, {})
            if "exp_avg_sq" in state:
                found[name] = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
    return found


def _parameter_names(state: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    return [(group["name"], group["param_names"]) for group in state["param_groups"]]


def copied(value: Any) -> Any:
    """A tree with every tensor cloned."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value
