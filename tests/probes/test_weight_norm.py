from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foretrain.models.roles import parameter_roles
from foretrain.probes.weight_norm import WeightNorm
from tests.tasks.subjects import model


def context(kind: str = "llama") -> Any:
    made = model(kind)
    return SimpleNamespace(model=made, roles=parameter_roles(made))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_norms_of_each_role(kind: str) -> None:
    given = context(kind)
    found = WeightNorm().measure(given)
    groups: dict[str, list[torch.Tensor]] = {}
    for name, parameter in given.model.named_parameters():
        groups.setdefault(given.roles[name].kind, []).append(parameter.detach().flatten())
    assert set(found) == {*groups, "all"}
    for role, parts in groups.items():
        assert found[role] == pytest.approx(float(torch.linalg.vector_norm(torch.cat(parts))), rel=1e-5)
    assert found["all"] == pytest.approx(math.sqrt(sum(found[role] ** 2 for role in groups)))


def test_how_far_weights_moved_and_that_a_resumed_run_still_knows() -> None:
    given = context()
    probe = WeightNorm(moved=True)
    probe.setup(given)
    assert probe.measure(given)["moved/all"] == 0
    with torch.no_grad():
        given.model.get_input_embeddings().weight[3] += 2.0
        given.model.model.norm.weight.sub_(1.0)
    found = probe.measure(given)
    assert found["moved/embedding"] == pytest.approx(2 * math.sqrt(32), rel=1e-5)
    assert found["moved/norm"] == pytest.approx(math.sqrt(32), rel=1e-5)
    assert found["moved/matrix"] == 0
    assert found["moved/all"] == pytest.approx(math.sqrt(5 * 32), rel=1e-5)
    resumed = WeightNorm(moved=True)
    resumed.setup(given)
    resumed.load_state_dict(probe.state_dict())
    assert resumed.measure(given) == found


def test_it_changes_nothing_and_keeps_nothing_unasked() -> None:
    given = context()
    before = {name: parameter.clone() for name, parameter in given.model.named_parameters()}
    probe = WeightNorm()
    probe.setup(given)
    assert probe.measure(given) == probe.measure(given) and probe.state_dict() == {}
    assert all(torch.equal(before[name], parameter) for name, parameter in given.model.named_parameters())
