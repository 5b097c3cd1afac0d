from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from foretrain import flops
from foretrain.models.bert import Bert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.scratch import Scratch

ROWS, LENGTH, VOCABULARY = 2, 32, 96
SHAPES: list[tuple[type[Scratch], dict[str, Any]]] = [
    (Llama, {}),
    (Llama, {"tied": False}),
    (Llama, {"kv_heads": 2}),
    (Gpt2, {}),
    (Bert, {}),
]


def build(kind: type[Scratch], fields: dict[str, Any], attention: str = "sdpa") -> Any:
    part = kind(**{"layers": 3, "width": 64, "heads": 4, "context": LENGTH, **fields})
    model = part.build(part.config(VOCABULARY, {"pad": 1}), 0).train()
    model.set_attn_implementation(attention)
    return model


def tokens() -> Tensor:
    return torch.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % 90 + 2


def train(model: Any) -> None:
    F.cross_entropy(model(input_ids=tokens()).logits.flatten(0, 1), tokens().flatten()).backward()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("kind", "fields"), SHAPES)
def test_counted_and_analytic_agree(kind: type[Scratch], fields: dict[str, Any], attention: str) -> None:
    model = build(kind, fields, attention)
    forward = flops.analytic(model, ROWS, LENGTH)
    with torch.no_grad():
        assert flops.count(lambda: model(input_ids=tokens())) == pytest.approx(forward, rel=0.02)
    assert flops.count(lambda: train(model)) == pytest.approx(3 * forward, rel=0.02)
    assert flops.analytic_step(model.config, ROWS, LENGTH) == 3 * forward


def test_a_llama_by_hand() -> None:
    model = build(Llama, {"kv_heads": 2, "feedforward": 100})
    per_token = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 100) + 64 * VOCABULARY
    attention = 3 * 2 * LENGTH * 64  # queries times keys, then weights times values, per token
    assert flops.analytic(model, ROWS, LENGTH) == 2 * ROWS * LENGTH * (per_token + attention)


def test_logits_of_some_tokens_only() -> None:
    model = build(Bert, {})
    less = flops.analytic(model, ROWS, LENGTH) - flops.analytic(model, ROWS, LENGTH, predicted=10)
    assert less == 2 * (ROWS * LENGTH - 10) * 64 * VOCABULARY


class LinearLoss(torch.autograd.Function):
    """A loss that writes its products into buffers of its own, as fast losses do."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        logits = hidden.new_empty(len(hidden), len(weight))
        for start in range(0, len(hidden), 16):
            torch.mm(hidden[start : start + 16], weight.t(), out=logits[start : start + 16])
        losses = F.cross_entropy(logits, labels, reduction="none")
        logits = logits.softmax(-1)
        logits[torch.arange(len(labels)), labels] -= 1
        ctx.save_for_backward(hidden, weight, logits)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        hidden, weight, unit = ctx.saved_tensors
        unit = unit * gradient[:, None]
        into = torch.zeros_like(weight)
        into.addmm_(unit.t(), hidden)
        return unit @ weight, into, None


def test_products_inside_custom_functions_are_counted() -> None:
    model = build(Llama, {"tied": False})

    def step() -> None:
        hidden = model.model(input_ids=tokens()).last_hidden_state.flatten(0, 1)
        LinearLoss.apply(hidden, model.lm_head.weight, tokens().flatten()).mean().backward()

    assert flops.count(step) == pytest.approx(flops.analytic_step(model.config, ROWS, LENGTH), rel=0.02)


def attend(q: Tensor, k: Tensor, v: Tensor, **fields: Any) -> Callable[[], Any]:
    return lambda: F.scaled_dot_product_attention(q, k, v, **fields).sum().backward()


@pytest.mark.parametrize("fields", [{}, {"is_causal": True}, {"enable_gqa": True}])
def test_attention_counts_the_same_in_every_kernel(fields: dict[str, Any]) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads = 2 if "enable_gqa" in fields else 4
    q, k, v = (torch.randn(2, n, 16, 8, requires_grad=True) for n in (4, heads, heads))
    forward = 2 * 2 * 4 * 16 * 16 * (8 + 8)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            assert flops.count(attend(q, k, v, **fields)) == 3 * forward


def test_products_written_in_place() -> None:
    a, b, c = torch.ones(3, 4), torch.ones(4, 5), torch.ones(3, 5)
    assert flops.count(lambda: c.addmm_(a, b)) == 2 * 3 * 4 * 5
    assert flops.count(lambda: c[None].baddbmm_(a[None], b[None])) == 2 * 3 * 4 * 5
    assert flops.count(lambda: a @ torch.ones(4)) == 2 * 3 * 4


def test_counted_gives_the_result_and_counts_nothing_afterwards() -> None:
    matrix = torch.ones(4, 4)
    result, cost = flops.counted(lambda: matrix @ matrix)
    assert torch.equal(result, matrix * 4)
    assert cost == 2 * 4**3
    assert flops.count(lambda: None) == 0


def test_products_are_seen_under_inference_mode_too() -> None:
    model = build(Llama, {})
    with torch.inference_mode():
        assert flops.count(lambda: model(input_ids=tokens())) == flops.analytic(model, ROWS, LENGTH)


def test_other_products_are_counted() -> None:
    a, b = torch.ones(2, 3, 4), torch.ones(2, 4, 5)
    assert flops.count(lambda: torch.einsum("bij,bjk->bik", a, b)) == 2 * 2 * 3 * 4 * 5
    assert flops.count(lambda: torch.bmm(a, b)) == 2 * 2 * 3 * 4 * 5
    assert flops.count(lambda: F.conv1d(torch.ones(1, 3, 10), torch.ones(7, 3, 1))) == 2 * 10 * 3 * 7


@pytest.mark.parametrize("kind", [Llama, Gpt2, Bert])
def test_counting_changes_no_gradient(kind: type[Scratch]) -> None:
    plain, counted = build(kind, {}), build(kind, {})
    train(plain)
    flops.count(lambda: train(counted))
    for a, b in zip(plain.parameters(), counted.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad)


def saved_bytes(model: Any, context: Any) -> int:
    """Bytes that a forward pass keeps for its backward pass, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), context:
        F.cross_entropy(model(input_ids=tokens()).logits.float().flatten(0, 1), tokens().flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "autocast"])
@pytest.mark.parametrize(("kind", "fields"), SHAPES)
def test_memory_of_activations_within_a_factor_of_two(
    kind: type[Scratch], fields: dict[str, Any], precision: Any
) -> None:
    model = build(kind, fields)
    config = model.config
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    context = torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else contextlib.nullcontext()
    measured = saved_bytes(model, context)
    if precision == "autocast":
        # The bf16 copies of the matrices that it keeps count as weights.
        measured -= 2 * sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    assert 0.5 < flops.memory_parts(config, ROWS, LENGTH, precision)["activations"] / measured < 2


def test_memory_of_weights_gradients_and_optimizer() -> None:
    model = build(Llama, {})
    total = sum(parameter.numel() for parameter in model.parameters())
    fp32 = flops.memory_parts(model, ROWS, LENGTH, "fp32")
    assert (fp32["weights"], fp32["gradients"], fp32["optimizer"]) == (4 * total, 4 * total, 8 * total)
    bf16 = flops.memory_parts(model.config, ROWS, LENGTH, "bf16", moments=1, shards=2)
    assert (bf16["weights"], bf16["gradients"], bf16["optimizer"]) == (3 * total, 3 * total, 2 * total)
    assert flops.memory_estimate(model, ROWS, LENGTH, "fp32") == sum(fp32.values())


def test_checks_of_large_models_allocate_nothing() -> None:
    part = Llama(preset="1B", layers=2)
    config = part.config(32_768, {})
    assert flops.analytic_step(config, 1, 2048) > 1e12
    assert flops.memory_estimate(config, 1, 2048) > 1e9


def test_peak_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    flops.peak_flops.cache_clear()
    calls: list[torch.dtype] = []
    measure = flops._measured_peak
    monkeypatch.setattr(
        flops, "_measured_peak", lambda device, dtype: calls.append(dtype) or measure(device, dtype, 0.02)
    )
    device = torch.device("cpu")
    first = flops.peak_flops(device, "fp32")
    assert flops.peak_flops(device, "fp32") == first > 1e8
    assert flops.peak_flops(device, "bf16") == flops.peak_flops(device, "bf16")
    assert calls == [torch.float32, torch.bfloat16]
    flops.peak_flops.cache_clear()


def test_known_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    flops.peak_flops.cache_clear()
    for name, peak in (
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert flops.peak_flops(torch.device("cuda"), "bf16") == peak
        flops.peak_flops.cache_clear()
