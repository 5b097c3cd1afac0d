"""Give the modules of a `transformers` model faster CPU forwards that compute the same.

`accelerate(model)` replaces the `forward` of the submodules it knows by one with fewer passes over memory, checks each
replacement against the original on a random input first, and leaves everything else alone. Parameters, names and
classes do not change, so a checkpoint or an export of the model is what it was. This file alone knows what the modules
of `transformers` look like.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foretrain.kernels.attention import BLOCK, causal_attention
from foretrain.kernels.pointwise import rms_norm, swiglu

_MAX_SCORES = 1 << 26
"""Attention elements kept for the backward per layer; longer inputs use torch's fused attention."""

Forward = Callable[..., Any]

CACHE = ("cache", "past_key_values")
"""What `transformers` calls the argument that holds keys and values; before 5.24 the second."""


def _plain_call(x: Tensor, heads: int, mask: Tensor | None, kwargs: dict[str, Any]) -> bool:
    """True for the training call: causal, no cache, no padding, no attention weights wanted, short enough."""
    return (
        x.device.type == "cpu"
        and mask is None
        and not torch.is_autocast_enabled("cpu")
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.shape[0] * heads * x.shape[1] ** 2 <= _MAX_SCORES
        and x.shape[1] > 1
        and all(kwargs.get(name) is None for name in CACHE)
        and not kwargs.get("output_attentions")
        and kwargs.get("encoder_hidden_states") is None
        and kwargs.get("is_causal") is not False
    )


def _rms_forward(self: Any, x: Tensor) -> Tensor:
    if x.device.type != "cpu" or x.dtype != self.weight.dtype:
        return type(self).forward(self, x)
    return rms_norm(x, self.weight, self.variance_epsilon)


def _mlp_forward(self: Any, x: Tensor) -> Tensor:
    return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


def _gelu_forward(self: Any, x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _rotary_attention(
    self: Any, hidden_states: Tensor, position_embeddings: Any = None, attention_mask: Any = None, **kwargs: Any
) -> tuple[Tensor, None]:
    x, d = hidden_states, self.head_dim
    heads = self.q_proj.out_features // d
    dropout = self.attention_dropout if self.training else 0.0
    rotated = position_embeddings is not None and position_embeddings[0].shape[-1] == d
    if not rotated or dropout or not _plain_call(x, heads, attention_mask, kwargs):
        return type(self).forward(
            self,
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            **kwargs,
        )
    q, k, v = (p(x).view(*x.shape[:2], -1, d) for p in (self.q_proj, self.k_proj, self.v_proj))
    out = causal_attention(q, k, v, self.scaling, position_embeddings)
    return self.o_proj(out.view(*x.shape[:2], -1)), None


def _fused_attention(
    self: Any, hidden_states: Tensor, attention_mask: Any = None, **kwargs: Any
) -> tuple[Tensor, None]:
    x = hidden_states
    dropout = self.attn_dropout.p if self.training else 0.0
    if dropout or not _plain_call(x, self.num_heads, attention_mask, kwargs):
        return type(self).forward(self, hidden_states, attention_mask=attention_mask, **kwargs)
    q, k, v = self.c_attn(x).view(*x.shape[:2], 3, self.num_heads, self.head_dim).unbind(2)
    out = causal_attention(q, k, v, self.scaling)
    return self.resid_dropout(self.c_proj(out.view(*x.shape[:2], -1))), None


def _candidate(module: Any) -> tuple[Forward, dict[str, Any]] | None:
    """The replacement for a module and the arguments to try it on, or None for an unknown module."""
    name, parts = type(module).__name__, {n for n, _ in module.named_children()}
    params = {n for n, _ in module.named_parameters(recurse=False)}
    length = BLOCK + 5  # two blocks, the second one ragged
    if name.endswith("RMSNorm") and params == {"weight"} and hasattr(module, "variance_epsilon"):
        return _rms_forward, {"hidden_states": torch.randn(2, 3, module.weight.numel())}
    if name == "NewGELUActivation":
        return _gelu_forward, {"input": torch.randn(4, 64)}
    if parts == {"gate_proj", "up_proj", "down_proj", "act_fn"} and not params:
        return _mlp_forward, {"x": torch.randn(2, 3, module.gate_proj.in_features)}
    if parts == {"q_proj", "k_proj", "v_proj", "o_proj"} and not params and hasattr(module, "head_dim"):
        angle = torch.arange(length)[:, None] / 10.0 ** (torch.arange(module.head_dim // 2) / 4)
        angle = torch.cat((angle, angle), -1)[None]
        x = torch.randn(2, length, module.q_proj.in_features)
        return _rotary_attention, {
            "hidden_states": x,
            "position_embeddings": (angle.cos(), angle.sin()),
            "attention_mask": None,
        }
    if name == "GPT2Attention" and not getattr(module, "is_cross_attention", True):
        return _fused_attention, {"hidden_states": torch.randn(2, length, module.embed_dim)}
    return None


def _same(module: nn.Module, fast: Forward, kwargs: dict[str, Any]) -> bool:
    """Whether outputs and gradients agree in float32 on a copy of the module with random parameters."""
    probe = copy.deepcopy(module).float().eval()
    for p in probe.parameters():
        nn.init.normal_(p, std=0.3 if p.ndim == 1 else p.shape[-1] ** -0.5)
    name = next(iter(kwargs))
    results = []
    for run in (probe.forward, types.MethodType(fast, probe)):
        x = kwargs[name].clone().requires_grad_()
        try:
            # positional first argument: its name differs between modules
            y = run(x, **{k: v for k, v in kwargs.items() if k != name})
        except (TypeError, AttributeError, RuntimeError):
            return False
        y = y[0] if isinstance(y, tuple) else y
        weights = torch.linspace(-1, 1, y.numel()).view_as(y)
        results.append([y, *torch.autograd.grad((y * weights).sum(), [x, *probe.parameters()])])
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.detach().abs().max()))
        for a, b in zip(*results, strict=True)
    )


def accelerate(model: nn.Module) -> nn.Module:
    """Give every known submodule its faster forward, in place; returns ``model``.

    Each kind of module is verified once per distinct shape against its own forward (values and
    gradients, float32); one that disagrees keeps it. A call a fast form does not cover (cache,
    padding mask, dropout, autocast, other devices) goes to the original forward by itself.
    """
    verdicts: dict[Any, bool] = {}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        for module in model.modules():
            found = _candidate(module)
            if found is None or "forward" in vars(module):
                continue
            fast, kwargs = found
            key = (type(module), *(tuple(p.shape) for p in module.parameters()))
            key += (getattr(module, "scaling", None),)
            if key not in verdicts:
                verdicts[key] = _same(module, fast, kwargs)
            if verdicts[key]:
                module.forward = types.MethodType(fast, module)
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`."""
    known = (_rms_forward, _gelu_forward, _mlp_forward, _rotary_attention, _fused_attention)
    for module in model.modules():
        if getattr(vars(module).get("forward"), "__func__", None) in known:
            del module.forward
    return model
