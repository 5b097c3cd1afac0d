"""FLOPs and memory: counted on what runs, computed from shapes alone, and what the machine can do.

One convention throughout, so that runs with other kernels are matched rightly:

- A matrix product of [m, k] and [k, n] is 2 m k n. Only products count: everything else is memory traffic.
- Attention is its two products over the full square of positions, masked or not, fused or not, and twice that in the
  backward pass. torch's own formulas add the recomputation of the scores for fused kernels and leave out the fused
  kernel of the CPU altogether; ours count every kernel alike, so that a backward pass is two forward passes.
- What else is recomputed (checkpointed layers, losses made in pieces) is executed, and counted where it is executed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from foretrain.models.base import from_config
from foretrain.models.roles import blocks, output_layer, parameter_roles
from foretrain.models.surgery import linear_layers

T = TypeVar("T")
_aten = torch.ops.aten

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
}
"""Dense bf16 FLOPs per second, by a part of the device's name; more specific names first."""


def _attention(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    rows, heads, length, features = query
    return 2 * rows * heads * length * key[-2] * (features + value[-1])


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return 2 * _attention(query, key, value)


def _mm(left: Any, right: Any) -> int:
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


@cache
def _formulas() -> dict[Any, Callable[..., int]]:
    """FLOPs by operation: torch's registry, with attention of every kernel and what it leaves out."""
    formulas: dict[Any, Callable[..., int]] = {}
    for name in (
        "flash_attention_for_cpu",
        "fused_attention_overrideable",
        "flash_attention",
        "efficient_attention",
        "cudnn_attention",
    ):
        formulas[getattr(_aten, f"_scaled_dot_product_{name}")] = _attention
        formulas[getattr(_aten, f"_scaled_dot_product_{name}_backward")] = _attention_backward
    # Products written in place, and those with a vector.
    formulas[_aten.addmm_] = lambda out, left, right, **named: _mm(left, right)
    formulas[_aten.baddbmm_] = lambda out, left, right, **named: int(left[0]) * _mm(left[1:], right[1:])
    formulas[_aten.mv] = lambda matrix, vector, **named: 2 * int(matrix[0]) * int(matrix[1])
    return {**flop_registry, **{operation: shape_wrapper(formula) for operation, formula in formulas.items()}}


class _Counter(TorchDispatchMode):
    """Adds up the FLOPs of every operation and runs each as it is.

    torch's own counter takes some operations apart (the backward pass of SiLU), which changes their rounding: a step
    that is counted would then differ from one that is not.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = getattr(func, "_overloadpacket", func)
        formula = _formulas().get(operation)
        if formula is None and _only_composite(func):
            # Under inference mode, products arrive inside larger operations.
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


@cache
def _only_composite(func: Any) -> bool:
    if not isinstance(func, torch._ops.OpOverload):
        return False
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return has(func.name(), "CompositeImplicitAutograd") and not has(func.name(), "CPU")


def counted(function: Callable[[], T]) -> tuple[T, int]:
    """Run something once, eagerly, and count its FLOPs on this process, backward passes included.

    Counting changes no number that is computed. Products inside custom autograd functions are seen like any other; a
    compiled model is run and counted as the eager one.
    """
    with torch.compiler.set_stance("force_eager"), _Counter() as counter:
        result = function()
    return result, counter.total


def count(function: Callable[[], Any]) -> int:
    """FLOPs of one eager execution of `function`."""
    return counted(function)[1]


def analytic(model: PreTrainedModel, rows: int, length: int, predicted: int | None = None) -> int:
    """FLOPs of a forward pass of a dense transformer, from the shapes of its parameters.

    A vision model puts tokens of its own (the class token) beside the patches: they pass through its blocks, too.

    Args:
        model: the model or its skeleton.
        rows: windows, or images.
        length: tokens per window, or patches per image.
        predicted: tokens whose logits are made; unset: all.
    """
    config = model.config.get_text_config()
    tokens = rows * length
    numbers = {name: parameter.numel() for name, parameter in model.named_parameters()}
    matrices = {name: role for name, role in parameter_roles(model).items() if role.kind == "matrix"}
    inside = sum(numbers[name] for name, role in matrices.items() if role.block is not None)
    outside = sum(numbers[name] for name, role in matrices.items() if role.block is None)
    whole = length + _own_tokens(model)
    head = output_layer(model)
    output = head.weight.numel() if head is not None and isinstance(head.weight, torch.Tensor) else 0
    heads = int(config.num_attention_heads)
    features = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    attention = int(config.num_hidden_layers) * 4 * rows * heads * whole * whole * features
    return (
        2 * tokens * outside
        + 2 * rows * whole * inside
        + 2 * (tokens if predicted is None else predicted) * output
        + attention
    )


def _own_tokens(model: PreTrainedModel) -> int:
    """Tokens that a model puts beside those it is given."""
    own = ("cls_token", "register_tokens", "distillation_token")
    return sum(int(parameter.shape[1]) for name, parameter in model.named_parameters() if name.endswith(own))


def analytic_step(
    model: PreTrainedModel | PretrainedConfig, rows: int, length: int, predicted: int | None = None
) -> int:
    """FLOPs of a plain training step, forward and backward, from shapes alone; arguments as for `analytic`."""
    return 3 * analytic(_skeleton(model), rows, length, predicted)


def trained_step(plain: PreTrainedModel, trained: nn.Module, rows: int, length: int) -> int:
    """FLOPs of a training step of a reparametrized model, from shapes alone: that of the plain one, but for its layers.

    Each linear layer inside the blocks is counted once, forward and backward, on its skeleton; a frozen one makes no
    gradient of its weight, and neither does a frozen output layer. That the first block of a model without trained
    embeddings needs no gradient of its input is not looked at.

    Args:
        plain: the model or its skeleton.
        trained: a skeleton of it that `Parametrization.apply` returned.
        rows: windows, or images.
        length: tokens per window, or patches per image.
    """
    total = analytic_step(plain, rows, length)
    whole = rows * (length + _own_tokens(plain))
    for path, layer in linear_layers(plain).items():
        assert isinstance(layer.weight, torch.Tensor)
        total += _linear_step(trained.get_submodule(path), layer.weight, whole) - 6 * whole * layer.weight.numel()
    head = output_layer(trained)
    if head is not None and isinstance(head.weight, torch.Tensor) and not head.weight.requires_grad:
        total -= 2 * rows * length * head.weight.numel()
    return total


def _linear_step(layer: nn.Module, weight: torch.Tensor, tokens: int) -> int:
    inputs = weight.shape[0 if isinstance(layer, Conv1D) else 1]
    if not isinstance(layer, nn.Linear | Conv1D):
        inputs = int(layer.in_features)  # type: ignore[arg-type]
    x = torch.empty(1, tokens, inputs, device="meta", requires_grad=True)
    return count(lambda: layer(x).sum().backward())


def memory_parts(
    model: PreTrainedModel | PretrainedConfig,
    rows: int,
    length: int,
    precision: Literal["fp32", "bf16", "autocast"] = "bf16",
    *,
    moments: float = 2.0,
    shards: int = 1,
    trained: nn.Module | None = None,
) -> dict[str, int]:
    """Bytes that training takes on one device: `weights`, `gradients`, `optimizer` (its state), `activations`.

    The first three are exact. Activations are those an eager forward pass keeps for its backward pass, within a factor
    of 2 (better kernels keep less). What the process itself takes is not in it.

    Args:
        model: the model, its skeleton or its config.
        rows: windows per forward pass.
        length: tokens per window.
        precision: that of the recipe.
        moments: numbers that the optimizer keeps per parameter.
        shards: devices that weights, gradients and optimizer state are split over.
        trained: skeleton of the model as it is trained, where that has other parameters.
    """
    model = _skeleton(model)
    held = model if trained is None else trained
    moved = sum(parameter.numel() for parameter in held.parameters() if parameter.requires_grad)
    every = sum(parameter.numel() for parameter in held.parameters())
    fixed = _buffers(held) - _buffers(model)
    roles = parameter_roles(model)
    numbers = {name: parameter.numel() for name, parameter in model.named_parameters()}
    config, layers = model.config.get_text_config(), blocks(roles)
    width, small = int(config.hidden_size), 4 if precision == "fp32" else 2
    inside = sum(numbers[name] for name, role in roles.items() if role.kind == "matrix" and role.block is not None)
    # Features that the feed-forward layers of a token read and write: their weights over the width.
    wide = max(0, inside // width - 4 * width * layers)
    # What matrix products and activation functions keep, in the computing type; what norms keep, which is fp32.
    kept = (9 * width * layers + 3 * wide // 2) * small + 2 * width * layers * 4
    logits = int(config.vocab_size) * (small + 4) if output_layer(model) is not None else 0
    return {
        "weights": every * (4 if precision == "fp32" else 6) // shards + fixed,
        "gradients": moved * (6 if precision == "bf16" else 4) // shards,
        "optimizer": int(4 * moments * moved) // shards,
        "activations": rows * length * (kept + logits),
    }


def _buffers(model: nn.Module) -> int:
    return sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())


def memory_estimate(
    model: PreTrainedModel | PretrainedConfig,
    rows: int,
    length: int,
    precision: Literal["fp32", "bf16", "autocast"] = "bf16",
    *,
    moments: float = 2.0,
    shards: int = 1,
    trained: nn.Module | None = None,
) -> int:
    """Sum of `memory_parts`, which has the arguments."""
    parts = memory_parts(model, rows, length, precision, moments=moments, shards=shards, trained=trained)
    return sum(parts.values())


def _skeleton(model: PreTrainedModel | PretrainedConfig) -> PreTrainedModel:
    if isinstance(model, PreTrainedModel):
        return model
    with torch.device("meta"):
        return from_config(model)


@cache
def peak_flops(device: torch.device, precision: Literal["fp32", "bf16", "autocast"]) -> float:
    """FLOPs per second of large matrix products on a device: published (bf16 on known GPUs) or measured.

    The measurement takes about 0.2 s and is made once per process.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAKS.items():
            if part in name:
                return peak
    return _measured_peak(device, dtype)


def _measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """The best of many products of several sizes: whatever else runs on the machine only ever slows one down."""
    # The best size depends on caches and on how many threads share one product.
    sizes = (4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    best, begin = 0.0, time.perf_counter()
    for number, size in enumerate(sizes, 1):
        matrix = torch.full((size, size), 0.01, device=device, dtype=dtype)
        out = torch.mm(matrix, matrix)
        while True:
            _finish(device)
            start = time.perf_counter()
            torch.mm(matrix, matrix, out=out)
            _finish(device)
            end = time.perf_counter()
            best = max(best, 2 * size**3 / (end - start))
            if end - begin > seconds * number / len(sizes):
                break
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
