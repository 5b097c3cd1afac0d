"""Members: the finished runs that are merged, and whether they fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.run_directory import RunDirectory


def check_members(runs: Sequence[RunDirectory], some: bool = True) -> None:
    """See that runs have ended, and read the same ids in the same context; `some`: whether there must be one.

    Raises:
        RequestError: one has not or does not; the message names it.
    """
    if not runs:
        if some:
            raise RequestError("There is no run to merge; name one at least.")
        return
    for run in runs:
        if run.status() != "done":
            raise RequestError(f"{run.path} cannot be merged: its status is '{run.status()}'. Run it to its end first.")
    first = runs[0].plan()
    for run in runs[1:]:
        plan = run.plan()
        if plan["hashes"]["tokenizer"] != first["hashes"]["tokenizer"]:
            raise RequestError(
                f"{run.path} cannot be merged with {runs[0].path}: their tokenizers differ, so one id stands for two "
                "texts. Train both with one tokenizer (a pretrained one, or the same corpus and settings)."
            )
        if plan["model"]["context"] != first["model"]["context"]:
            raise RequestError(
                f"{run.path} cannot be merged with {runs[0].path}: they read {plan['model']['context']} and "
                f"{first['model']['context']} tokens at once (model.context)."
            )


def describe_members(runs: Sequence[RunDirectory]) -> list[dict[str, Any]]:
    """What was merged, a dict each: `run` (path), `name`, `seed`, `steps`, and `hash` of everything that went into it.

    A run is a pure function of those inputs, so the hash stands for its weights.
    """
    members = []
    for run in runs:
        result = run.result() or {}
        known = [result["hashes"], result["seed"], result["cost"]["steps"]]
        members.append(
            {
                "run": str(run.path.resolve()),
                "name": result["name"],
                "seed": result["seed"],
                "steps": result["cost"]["steps"],
                "hash": hash_data(known),
            }
        )
    return members
