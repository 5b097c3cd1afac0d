"""A control for online mixtures: fixed weights, given or those that another run ended up using."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PrivateAttr, model_validator

from foretrain.batch import Batch
from foretrain.errors import RequestError, unknown_name
from foretrain.parts import Facts
from foretrain.section import DataPath, Number
from foretrain.steering._ended_run import ended_run
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context

_CLOSE = 1e-12
"""Relative difference up to which weights are the same, written in another way."""


class StaticMixture(Steering):
    """Constant domain weights: the control that tells what a mixture method does from when it does it.

    A method that moves domain weights may gain because its mixture is a better one on average, which any fixed mixture
    could have had, or because it gives each domain its time. With `run` this part trains on the average mixture of such
    a run all along: what the method is better than this by is owed to its timing. That average is known afterwards
    only, so this is a control and, as the other run was paid for, no cheap method.

    Weights that are given act from the first step on; those of a run from the third (until then it ran on the recipe's
    own), as what a moving mixture decides.
    """

    kind: Literal["static_mixture"] = "static_mixture"
    facts: ClassVar[Facts] = Facts(
        answers="mix: control, is an online mixture better than a constant one with the same shares?",
        overhead="none; the run that it may read was paid for before",
    )

    weights: dict[str, Number] | None = None
    """Relative weight of every domain. Either these or `run`."""
    run: DataPath | None = None
    """The run (its directory, or the model folder inside; `product:NAME` in a study) whose weights, averaged over its
    steps, are used. It has this recipe's domains, has ended, and moved its weights by a steering part."""

    _domains: tuple[str, ...] = PrivateAttr(())
    _weights: dict[str, float] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_of_them(self) -> StaticMixture:
        if (self.weights is None) == (self.run is None):
            raise ValueError("needs either `weights` (a number for every domain) or `run`, and not both")
        negative = [name for name, weight in (self.weights or {}).items() if weight < 0]
        if negative:
            raise ValueError(f"weights.{negative[0]}: should be 0 or more")
        if self.weights is not None and not sum(self.weights.values()) > 0:
            raise ValueError("weights: at least one should be above 0")
        return self

    def setup(self, context: Context) -> None:
        """See that the weights given are for the domains of the recipe.

        Raises:
            RequestError: they are for others.
        """
        self._domains = context.stream.domains
        if self.weights is not None:
            _refuse_others(self.weights, self._domains, "weights")
            self._weights = dict(self.weights)

    def before_step(self, batch: Batch) -> None:
        """Read the other run before anything is computed, unless a checkpoint has said what it held.

        Raises:
            RequestError: there is no such run, it has not ended, has no such figures, or has other domains.
        """
        if self._weights is None:
            assert self.run is not None
            self._weights = average_weights(self.run, self._domains)

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """The constant weights; those that come in where they are the same mixture, or a run has not been read yet."""
        if self._weights is None:
            return weights
        given, own = sum(weights.values()), sum(self._weights.values())
        same = all(
            math.isclose(weights[name] / given, self._weights[name] / own, rel_tol=_CLOSE) for name in self._weights
        )
        return weights if same else self._weights

    def state_dict(self) -> dict[str, Any]:
        """The weights, once they are known: a resumed run does not read the other one again."""
        return {"weights": None if self._weights is None else dict(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._weights = state["weights"]


def average_weights(path: Path | str, domains: Sequence[str]) -> dict[str, float]:
    """The share of every domain in a run that has ended, averaged over its steps.

    Args:
        path: of the run directory, or of the model folder inside.
        domains: that the run should have.

    Raises:
        RequestError: there is no such run, it has not ended, has no such figures, or has other domains.
    """
    run = ended_run(path, "static_mixture", "its average mixture")
    prefix, suffix = "domain/", "/weight"
    named = (name for name in run.names() if name.startswith(prefix) and name.endswith(suffix))
    found = {name[len(prefix) : -len(suffix)]: float(run.series(name).values.mean()) for name in named}
    if not found:
        raise RequestError(
            f"steering 'static_mixture': run: {run.path} has no figures such as domain/NAME/weight, which a run has "
            "whose steering moves domain weights; name such a run, or give `weights`."
        )
    _refuse_others(found, domains, f"run: {run.path} is of other domains than this recipe")
    return {name: found[name] for name in domains}


def _refuse_others(found: Mapping[str, float], domains: Sequence[str], place: str) -> None:
    """See that there is a weight for every domain of the recipe and for no other.

    Raises:
        RequestError: a domain is unknown or missing; the message, which begins with the `place`, names the nearest.
    """
    unknown = [name for name in found if name not in domains]
    if unknown:
        raise RequestError(f"steering 'static_mixture': {place}: {unknown_name('domain', unknown[0], domains)}")
    missing = [name for name in domains if name not in found]
    if missing:
        raise RequestError(
            f"steering 'static_mixture': {place}: there is no weight for domain '{missing[0]}'; every domain of the "
            "recipe needs one (0: never drawn)."
        )
