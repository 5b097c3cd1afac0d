"""Rehearsal of old domains by a power of their age."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.spans import Span, interval
from foretrain.steering._rehearsal import Rehearsal, Share

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.stages import Period


class PowerLawRehearsal(Rehearsal):
    """Windows of earlier domains come again, each domain in proportion to a power of its age: w = age^(-exponent).

    Earlier domains are those that were read before the current stage and that it does not draw; the windows of one
    domain are equally likely. Ages are counted in steps.

    The controls are settings: exponent 0 is uniform over earlier domains, a negative one prefers what is oldest, and
    `time_constant` (with exponent 0) makes the decay exponential; 100, with `since: introduction`, takes the latest
    domain alone. All rehearse as much.

    With `since: presentation` a domain that is rehearsed becomes young, and the process arranges itself: with a small
    exponent all domains come to be rehearsed nearly alike, with a large one some at each step and others hardly. Look
    at the realised shares, `DOMAIN`, before a comparison is read.
    """

    kind: Literal["power_law_rehearsal"] = "power_law_rehearsal"
    facts: ClassVar[Facts] = Facts(
        paper="Catastrophic Interference is Mitigated in Naturalistic Power-Law Learning Environments",
        arxiv="2401.10393",
        year=2024,
        answers="mix: how often does each earlier domain come again?",
        overhead="none; the windows it takes are missing elsewhere",
    )

    share: Share | dict[str, Share] = 0.1
    """Share of the windows that are rehearsed ones; by stage: `{second: 0.1, third: 0.2}`, and none in others. While
    there is no earlier domain, none is."""
    exponent: Number = Field(1.0, ge=-100, le=100)
    """How steeply weights fall with age."""
    time_constant: Span | None = Field(None, gt=0)
    """Weights also fall by exp(-age / this): steps, or a share of the run; unset: they do not."""
    since: Literal["presentation", "introduction"] = "presentation"
    """What age counts from: the last step that read the domain (rehearsal included), or the first one."""

    _first: dict[str, int] = PrivateAttr(default_factory=dict)
    _latest: dict[str, int] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """See the base; no domain was read yet."""
        super().setup(context)
        self._first, self._latest = {}, {}

    def returns(self, domain: str, stage: str | None, now: Period) -> bool:
        """Domains of earlier stages that the current one does not draw."""
        return stage != now.name and not now.weights[domain]

    def chances(self, sizes: Mapping[str, int], step: int) -> Mapping[str, float]:
        """By age alone, however much there is of a domain."""
        ages = {name: self.age(name, step) for name in sizes}
        decay = 0.0 if self.time_constant is None else 1 / interval(self.time_constant, self._context.total_steps)
        logs = {name: -self.exponent * math.log(age) - decay * age for name, age in ages.items()}
        top = max(logs.values())  # only ratios count, and none may overflow
        return {name: math.exp(value - top) for name, value in logs.items()}

    def age(self, domain: str, step: int) -> int:
        """Steps since the domain was read; of one that only an earlier run read, since just before this one."""
        read = self._latest if self.since == "presentation" else self._first
        return step - read.get(domain, -1)

    def presented(self, domains: Collection[str], step: int) -> None:
        """Keep when each domain was read first and last."""
        for name in sorted(domains):
            self._first.setdefault(name, step)
            self._latest[name] = step

    def state_dict(self) -> dict[str, Any]:
        """What the base keeps, and the steps that read each domain first and last."""
        return {**super().state_dict(), "first": dict(self._first), "latest": dict(self._latest)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self._first, self._latest = dict(state["first"]), dict(state["latest"])
