from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertModel

from foretrain.errors import RequestError
from foretrain.models.bert import Bert
from foretrain.models.gpt2 import Gpt2
from foretrain.models.llama import Llama
from foretrain.models.roles import output_layer, parameter_roles, select
from foretrain.models.scratch import Scratch

LAYERS = 3


def skeleton(kind: type[Scratch], tied: bool) -> nn.Module:
    part = kind(layers=LAYERS, width=64, heads=2, context=32, tied=tied)
    return part.skeleton(part.config(80, {"pad": 1}))


# By kind: embeddings, matrices, norms, biases.
EXPECTED: dict[type[Scratch], tuple[int, int, int, int]] = {
    Llama: (1, 7 * LAYERS, 2 * LAYERS + 1, 0),
    Gpt2: (2, 4 * LAYERS, 2 * LAYERS + 1, 6 * LAYERS + 1),
    # BERT's output layer adds a transform: a matrix, its bias, a norm with its bias, and the bias of the logits.
    Bert: (3, 6 * LAYERS + 1, 2 * LAYERS + 2, 8 * LAYERS + 1 + 3),
}


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("tied", [True, False])
def test_roles_of_every_kind(kind: type[Scratch], tied: bool) -> None:
    model = skeleton(kind, tied)
    roles = parameter_roles(model)
    assert list(roles) == [name for name, _ in model.named_parameters()]
    counts = Counter(role.kind for role in roles.values())
    embeddings, matrices, norms, biases = EXPECTED[kind]
    head = 0 if tied else 1
    # Where BERT is not tied, transformers keeps a second bias of the logits that nothing reads.
    biases += kind is Bert and not tied
    assert counts == Counter(embedding=embeddings, matrix=matrices, norm=norms, bias=biases, head=head) + Counter()
    assert {role.block for role in roles.values()} == {None, *range(LAYERS)}
    assert sum(role.tied for role in roles.values()) == (1 if tied else 0)
    for name, role in roles.items():
        assert name.startswith(role.path)
        assert f".{role.block}." in name or role.block is None


def test_roles_of_a_body_with_a_pooler() -> None:
    config = Bert(layers=LAYERS, width=64, heads=2, context=32).config(80, {})
    with torch.device("meta"):
        roles = parameter_roles(BertModel(config))
    assert roles["pooler.dense.weight"].kind == "matrix"
    assert roles["pooler.dense.weight"].block is None
    assert not any(role.tied for role in roles.values())


@pytest.mark.parametrize("tied", [True, False])
def test_wrappers_do_not_change_roles(tied: bool) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    model = skeleton(Llama, tied)
    plain, wrapped = parameter_roles(model), parameter_roles(Wrapper(model))
    assert {f"module.{name}": role for name, role in plain.items()} == wrapped
    compiled: Any = torch.compile(model)
    assert list(parameter_roles(compiled).values()) == list(plain.values())
    assert output_layer(Wrapper(model)) is model.get_output_embeddings()  # type: ignore[operator]


def test_a_plain_module_has_roles_too() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    kinds = {name: role.kind for name, role in parameter_roles(module).items()}
    assert kinds == {
        "0.weight": "matrix",
        "0.bias": "bias",
        "1.weight": "norm",
        "1.bias": "bias",
        "2.weight": "embedding",
    }


@pytest.mark.parametrize("kind", EXPECTED)
def test_subsets(kind: type[Scratch]) -> None:
    roles = parameter_roles(skeleton(kind, True))
    assert select(roles, "all") == list(roles)
    assert select(roles, "last:1") == [name for name in roles if f".{LAYERS - 1}." in name]
    assert select(roles, "last:2") == [name for name in roles if f".{LAYERS - 1}." in name or f".{LAYERS - 2}." in name]
    assert select(roles, "first:1") == [name for name in roles if ".0." in name]
    assert set(select(roles, "first:1")).isdisjoint(select(roles, "last:2"))
    assert select(roles, "norms") == [name for name, role in roles.items() if role.kind == "norm"]
    assert select(roles, "re:\\.1\\..*(q_proj|c_attn|query)\\.weight")
    assert len(select(roles, "head")) == 1
    both = select(roles, "last:1+head")
    assert both == [name for name in roles if name in {*select(roles, "last:1"), *select(roles, "head")}]
    assert select(roles, "norms + re:.+") == list(roles)


def test_head_where_it_is_not_tied() -> None:
    roles = parameter_roles(skeleton(Llama, False))
    assert select(roles, "head") == ["lm_head.weight"]
    assert select(roles, "embeddings") == ["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("subset", "words"),
    [
        ("norm", "did you mean 'norms'"),
        ("last:9", "1 to 3 blocks"),
        ("last:0", "1 to 3 blocks"),
        ("first:x", "1 to 3 blocks"),
        ("re:(", "not a regular expression"),
        ("re:nothing_of_that_name", "holds none"),
        ("biases", "holds none"),
        ("", "no subset"),
        ("last:1+heads", "did you mean 'head'"),
    ],
)
def test_subsets_that_are_refused(subset: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        select(parameter_roles(skeleton(Llama, True)), subset)
