"""Momentum, orthogonalised: matrices move by the nearest semi-orthogonal matrix to their momentum."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

from foretrain.models.roles import Role
from foretrain.optim.base import Optimizer, grouped
from foretrain.parts import Facts
from foretrain.section import Count, Number

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a*s + b*s^3 + c*s^5 that each iteration applies to every singular value (Jordan et al. 2024)."""
TOGETHER = 1 << 25
"""Most numbers that go through one iteration together; it bounds the memory of a step."""


class Muon(Optimizer):
    """Muon for matrices, AdamW for the rest (embeddings, output layer, norms, biases).

    The update of a matrix is scaled by 0.2 * sqrt(max(rows, columns)), which gives it the root mean square of an AdamW
    update, so that one learning rate and weight decay serve both. A fused matrix (GPT-2's query-key-value) is
    orthogonalised as one.
    """

    kind: Literal["muon"] = "muon"
    momentum: Number = Field(0.95, ge=0, lt=1)
    """Share of the running sum of gradients kept at each step (Nesterov's form)."""
    iterations: Count = Field(5, ge=1, le=20)
    """Newton-Schulz iterations."""
    weight_decay: Number = Field(0.1, ge=0)
    """Decoupled weight decay of matrices, times the learning rate at each step; usual: 0 to 0.3."""
    beta1: Number = Field(0.9, ge=0, lt=1)
    """AdamW's, for the other parameters."""
    beta2: Number = Field(0.95, ge=0, lt=1)
    """AdamW's, for the other parameters."""
    eps: Number = Field(1e-8, gt=0)
    """AdamW's, for the other parameters."""
    facts: ClassVar[Facts] = Facts(
        paper="Muon is Scalable for LLM Training",
        arxiv="2502.16982",
        year=2025,
        answers="how does a gradient become a step? as an orthogonal matrix",
        overhead="15 small matrix products per matrix and step",
    )

    def build(self, parameters: dict[str, nn.Parameter], roles: dict[str, Role]) -> torch.optim.Optimizer:
        return MuonAdamW(grouped(parameters, roles, self._settings), lr=self.lr)

    def moments(self, role: Role) -> int:
        return 1 if _is_matrix(role) else 2

    def _settings(self, role: Role) -> dict[str, Any]:
        if _is_matrix(role):
            return {
                "name": "muon",
                "peak_lr": self.lr,
                "weight_decay": self.weight_decay,
                "momentum": self.momentum,
                "iterations": self.iterations,
            }
        return {"name": "adamw", "peak_lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps}


def _is_matrix(role: Role) -> bool:
    return role.kind == "matrix" and not role.entries


class MuonAdamW(torch.optim.Optimizer):
    """The `torch.optim.Optimizer` of `Muon`: groups named `muon` and `adamw`, each moved in its own way."""

    def __init__(self, params: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                (self._muon if group["name"] == "muon" else self._adamw)(group, moved)
        return loss

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
            shapes[parameter.shape].append(parameter)
        # Matrices of one shape go through the iteration together: few large products instead of many small ones.
        for shape, members in shapes.items():
            count = max(1, TOGETHER // shape.numel())
            for start in range(0, len(members), count):
                self._move(group, members[start : start + count])

    def _move(self, group: dict[str, Any], members: list[Tensor]) -> None:
        lr, momentum = float(group["lr"]), group["momentum"]
        ahead = [_whole(parameter.grad + momentum * self.state[parameter]["momentum"]) for parameter in members]
        directions = orthogonalise(torch.stack([each.flatten(1) for each in ahead]), group["iterations"])
        scale = 0.2 * math.sqrt(max(directions.shape[-2:]))
        for parameter, direction in zip(members, directions, strict=True):
            step = direction.to(parameter.dtype).view(parameter.shape)
            parameter.mul_(1 - lr * group["weight_decay"])
            parameter.sub_(_cut(step, parameter), alpha=lr * scale)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices (`U V^T` of the singular value decomposition), roughly.

    Newton-Schulz iterations in bf16 push every singular value towards 1; five take those above a hundredth of the
    Frobenius norm to between 0.6 and 1.3, which serves training as well as exactly 1 (Jordan et al. 2024).

    Args:
        matrices: [number, rows, columns].
        iterations: of the quintic.

    Returns:
        bfloat16 [number, rows, columns].
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    work = matrices.mT if tall else matrices
    work = (work / torch.linalg.matrix_norm(work, keepdim=True).clamp(min=1e-20)).bfloat16()
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = torch.bmm(work, work.mT)
        work = torch.baddbmm(work, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), work, beta=a)
    return work.mT if tall else work


def _whole(value: Tensor) -> Tensor:
    """A sharded tensor, gathered from all ranks."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _cut(value: Tensor, pattern: Tensor) -> Tensor:
    """This rank's shard of a whole tensor, where `pattern` is sharded."""
    return distribute_tensor(value, pattern.device_mesh, pattern.placements) if isinstance(pattern, DTensor) else value
