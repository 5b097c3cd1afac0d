from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from foretrain.errors import RequestError
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.roles import parameter_roles, select
from foretrain.models.scratch import Scratch
from foretrain.models.surgery import RebuiltLinear, chosen_layers, linear_layers, reparametrize, restore

SIZE: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "feedforward": 24, "context": 8}


def built(kind: type[Scratch] = Llama) -> Any:
    part = kind(**SIZE)
    return part.build(part.config(30, {}), 0)


class Scaled(RebuiltLinear):
    """W = diag(rows) M: two kinds of numbers, one of them entries."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, entries=("rows",))
        weight = layer.weight.detach().T if self.transposed else layer.weight.detach()
        self.matrix = nn.Parameter(weight.clone())
        self.rows = nn.Parameter(torch.linspace(0.5, 1.5, self.out_features))

    def numbers(self) -> tuple[Tensor, ...]:
        return self.matrix, self.rows

    def build(self, *numbers: Tensor) -> Tensor:
        matrix, rows = numbers
        return rows[:, None] * matrix


@pytest.mark.parametrize("kind", ["linear", "biased", "conv1d"])
@pytest.mark.parametrize("frozen", ["", "matrix", "rows"])
def test_values_and_gradients_are_those_of_a_weight_that_is_kept(kind: str, frozen: str) -> None:
    torch.manual_seed(0)
    layer = Scaled(Conv1D(5, 7) if kind == "conv1d" else nn.Linear(7, 5, bias=kind == "biased"))
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)
    x = torch.randn(2, 3, 7, requires_grad=True)
    y = layer(x)
    expected = F.linear(x, layer.rows[:, None] * layer.matrix, layer.bias)
    torch.testing.assert_close(y, expected)
    wanted = [x, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    weights = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((out * weights).sum(), wanted, retain_graph=True) for out in (y, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    plain = layer.plain()
    torch.testing.assert_close(plain(x), y)
    assert type(plain) is (Conv1D if kind == "conv1d" else nn.Linear)


def test_its_gradient_can_be_differentiated() -> None:
    torch.manual_seed(0)
    layer = Scaled(nn.Linear(4, 3)).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def of(x: Tensor, matrix: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"matrix": matrix, "rows": rows, "bias": bias}, (x,))  # type: ignore[no-any-return]

    inputs = (x, layer.matrix, layer.rows, layer.bias)
    assert torch.autograd.gradcheck(of, inputs)
    assert torch.autograd.gradgradcheck(of, inputs)


@pytest.mark.parametrize("enabled", [False, True])
def test_neither_the_weight_nor_its_gradient_is_kept(enabled: bool) -> None:
    layer, kept = Scaled(nn.Linear(70, 50)), list[torch.Size]()

    def pack(tensor: Tensor) -> Tensor:
        if not any(tensor is parameter for parameter in layer.parameters()):
            kept.append(tensor.shape)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=enabled),
    ):
        y = layer(torch.randn(2, 3, 70, requires_grad=True))
    assert kept == [(2, 3, 70)]
    y.float().sum().backward()
    assert layer.matrix.grad is not None and layer.matrix.grad.dtype == torch.float32


def test_autocast_is_the_same_in_the_backward_pass() -> None:
    torch.manual_seed(0)
    layer = Scaled(nn.Linear(7, 5))
    x = torch.randn(4, 7, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), F.linear(x, layer.rows[:, None] * layer.matrix, layer.bias)
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, theirs)
    wanted = [x, *layer.parameters()]
    for a, b in zip(*(torch.autograd.grad(out.sum(), wanted) for out in (ours, theirs)), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", [Llama, Gpt2])
def test_what_is_replaced_and_restored_computes_the_same(kind: type[Scratch]) -> None:
    model = built(kind)
    names, ids = [name for name, _ in model.named_parameters()], torch.arange(8)[None]
    before = parameter_roles(model)
    reparametrize(model, "last:1", lambda path, layer: Scaled(layer))
    replaced = [path for path, module in model.named_modules() if isinstance(module, Scaled)]
    assert replaced == [path for path in linear_layers(built(kind)) if ".1." in path]
    roles = parameter_roles(model)
    for path in replaced:
        assert roles[f"{path}.matrix"] == before[f"{path}.weight"]
        assert roles[f"{path}.rows"].kind == "matrix" and roles[f"{path}.rows"].entries
        assert roles[f"{path}.rows"].path == path and roles[f"{path}.rows"].block == 1
    inside = {name for name, role in roles.items() if role.block == 1}
    assert set(select(roles, "last:1")) == inside and f"{replaced[0]}.rows" in inside
    expected = model(input_ids=ids).logits
    restore(model)
    assert [name for name, _ in model.named_parameters()] == names
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    assert not any(isinstance(module, RebuiltLinear) for module in model.modules())


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("matrices", 14),
        ("all", 14),
        ("first:1", 7),
        ("re:(q|v)_proj", 4),
        ("last:1+re:down", 8),
    ],
)
def test_layers_by_role_and_pattern(where: str, paths: int) -> None:
    assert len(chosen_layers(built(), where)) == paths


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("re:q_porj", "'re:q_porj' holds no linear layer inside the blocks; did you mean 're:q_proj'?"),
        ("re:zzz", "there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        ("norms", "'norms' holds no linear layer inside the blocks"),
        ("re:lm_head|embed", "holds no linear layer inside the blocks"),
        ("matrixes", "there is no subset 'matrixes'; did you mean 'matrices'?"),
        ("last:3", "'last:3' should name 1 to 2 blocks"),
        ("re:(", "'(' is not a regular expression"),
    ],
)
def test_what_holds_no_layer_is_refused(where: str, words: str) -> None:
    with pytest.raises(RequestError) as raised:
        chosen_layers(built(), where)
    assert str(raised.value).startswith("parametrization.targets: ") and words in str(raised.value)
