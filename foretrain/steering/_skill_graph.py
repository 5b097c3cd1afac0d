"""Graphs of skills: how much training on one domain lowers the loss of another; given, read, or learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from foretrain.batch import Batch
from foretrain.errors import RequestError, unknown_name
from foretrain.gradients import mean_gradient
from foretrain.hashing import seed_from
from foretrain.steering._ended_run import ended_run

if TYPE_CHECKING:
    from foretrain.context import Context

Graph = dict[str, dict[str, float]]
"""A_ij by the domain trained on (i, the rows of a matrix) and the domain evaluated (j, its columns)."""

FIGURE = "skill_it/graph"
"""What the figures of a graph are called, before `/TRAINED/EVALUATED`."""


def complete_graph(trained: Sequence[str], evaluated: Sequence[str]) -> Graph:
    """Every domain helps every other alike: the mixture stays as it comes in."""
    return {name: dict.fromkeys(evaluated, 1.0) for name in trained}


def identity_graph(trained: Sequence[str], evaluated: Sequence[str]) -> Graph:
    """Every domain helps itself alone: each is drawn by its own loss."""
    return {name: {other: float(name == other) for other in evaluated} for name in trained}


def matrix_graph(matrix: Sequence[Sequence[float]], trained: Sequence[str], evaluated: Sequence[str]) -> Graph:
    """A matrix with a row for each domain trained on and a column for each evaluated.

    Raises:
        RequestError: it has another shape.
    """
    columns = sorted({len(row) for row in matrix})
    if len(matrix) != len(trained) or columns != [len(evaluated)]:
        shape = f"{len(matrix)} x {' or '.join(map(str, columns)) or 0}"
        raise RequestError(
            f"steering 'skill_it': graph: the matrix is {shape}, and should be {len(trained)} x {len(evaluated)}: a "
            f"row for each domain that is trained on ({', '.join(trained)}), a column for each that is evaluated "
            f"({', '.join(evaluated)})."
        )
    return {name: dict(zip(evaluated, map(float, row), strict=True)) for name, row in zip(trained, matrix, strict=True)}


def named_graph(edges: Mapping[str, Mapping[str, float]], trained: Sequence[str], evaluated: Sequence[str]) -> Graph:
    """Edges by name; what is not named is 0, and 1 from a domain to itself.

    Raises:
        RequestError: a name is none of a domain that is trained on, or evaluated.
    """
    for name, others in edges.items():
        _refuse_unknown(name, "domain that is trained on", trained)
        for other in others:
            _refuse_unknown(other, f"domain that is evaluated ('{name}' has an edge to it),", evaluated)
    found = identity_graph(trained, evaluated)
    return {
        name: {**found[name], **{key: float(value) for key, value in edges.get(name, {}).items()}} for name in found
    }


def graph_of_run(path: str, trained: Sequence[str], evaluated: Sequence[str]) -> Graph:
    """The graph that another run learned, or was given.

    Raises:
        RequestError: there is no such run, it has not ended, or has no such graph of these domains.
    """
    run = ended_run(path, "skill_it", "its graph")
    found: Graph = {}
    for name in trained:
        found[name] = {}
        for other in evaluated:
            value = run.series(f"{FIGURE}/{name}/{other}").last
            if value is None:
                raise RequestError(
                    f"steering 'skill_it': run: {run.path} has no figure {FIGURE}/{name}/{other}; name a run with this "
                    "part whose domains hold those of this recipe."
                )
            found[name][other] = value
    return found


def learned_graph(
    context: Context, trained: Sequence[str], evaluated: Sequence[str], *, steps: int, rate: float, tokens: int | None
) -> Graph:
    """A_ij = max(0, (L_j before - L_j after) / L_j before), of a few steps on domain i alone from today's weights.

    Everything is put back after each of these proxy runs. On all ranks alike.

    Args:
        context: of the run.
        trained: domains that a proxy run is made on each.
        evaluated: domains whose loss on the steer split is measured.
        steps: of a proxy run.
        rate: of its steps, as a factor of the peak learning rate.
        tokens: of a domain that a loss is measured on.
    """
    before = context.evaluate("steer", tokens)
    found: Graph = {}
    for name in trained:
        with context.undone():
            for step in range(steps):
                context.apply(gradient_on(context, name, step), rate)
            after = context.evaluate("steer", tokens)
        found[name] = {other: _gain(before[other], after[other]) for other in evaluated}
        lost = [other for other in evaluated if not math.isfinite(after[other])]
        if lost:
            context.warn(
                f"steering 'skill_it': after {steps} steps on '{name}' the loss of '{lost[0]}' was not finite; there "
                "is no edge. A lower proxy_rate may help."
            )
    return found


def gradient_on(context: Context, domain: str, step: int) -> dict[str, Tensor]:
    """The gradient of the mean loss of as many windows of one domain as a step has, over all ranks.

    They are the windows that the run itself begins with in that domain; step 1 goes on where step 0 ended.
    """
    rows, group = context.stream.rows, context.group
    share = rows // group.world
    mine = np.arange(group.rank * share, (group.rank + 1) * share, dtype=np.int64) + step * rows
    batch = Batch(
        context.stream.windows_at(domain, mine),
        seed=seed_from(context.seed, "skill_it", domain),
        step=step,
        positions=torch.from_numpy(mine),
        domains=context.stream.domains,
    )
    batch = context.objective.prepare(batch).to(context.device)
    return mean_gradient(context, batch)


def _gain(before: float, after: float) -> float:
    gain = (before - after) / before if before > 0 else 0.0
    return max(0.0, gain) if math.isfinite(gain) else 0.0


def _refuse_unknown(name: str, what: str, known: Sequence[str]) -> None:
    if name not in known:
        raise RequestError(f"steering 'skill_it': graph: {unknown_name(what, name, known)}")
