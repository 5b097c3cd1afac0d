"""A mixture as even as the domains' sizes allow: none is read more often than a few times."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.steering._sizes import Size, Unit, sizes
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class UniMax(Steering):
    """UniMax: an equal budget for every domain, capped at `epochs` passes over its text, the leftover shared.

    From the smallest domain up, budget_i = min(N * size_i, what is left / domains left), of all tokens that the run
    trains on: so no domain is repeated more than N times (up to the whole windows of a stream, and the first steps,
    which have the recipe's weights), and what small ones cannot take the others share.

    The weights that come in say what an even share is: all alike they give the rule of the paper, and otherwise
    budgets are in their proportions until a cap is reached. Where all text N times is less than the run trains on,
    domains are drawn in proportion to their sizes, and a warning says how often they are read.
    """

    kind: Literal["unimax"] = "unimax"
    facts: ClassVar[Facts] = Facts(
        paper="UniMax: Fairer and more Effective Language Sampling for Large-Scale Multilingual Pretraining",
        arxiv="2304.09151",
        year=2023,
        answers="mix: how even can a mixture be without reading a small domain too often?",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"epochs": 1e12, "unit": "tokens"}

    epochs: Number = Field(4.0, gt=0)
    """How often the text of a domain is read at most (N)."""
    unit: Unit = "tokens"
    """Equal budgets in tokens, or in bytes, which are fair to languages that a tokenizer cuts finely."""

    _context: Any = PrivateAttr(None)
    _sizes: dict[str, Size] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """Look at the sizes of the sets."""
        self._context, self._sizes = context, sizes(context.stream)

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """Budgets as weights; those that come in, where no cap is reached."""
        context = self._context
        total = context.total_steps * context.stream.rows * context.stream.stride
        # Equal bytes are tokens in proportion to fertility: then the same rule, in tokens, gives both.
        even = {
            name: weight * self._sizes[name].tokens_per(self.unit) for name, weight in weights.items() if weight > 0
        }
        caps = {name: self.epochs * self._sizes[name].tokens for name in even}
        budgets = shared_out(total, even, caps)
        if sum(caps.values()) < total:
            often = self.epochs * total / sum(caps.values())
            context.warn(
                f"steering 'unimax': the run trains on {total:,} tokens, more than {self.epochs:g} times all text; "
                f"every domain is read {often:.3g} times instead."
            )
        elif self.unit == "tokens" and all(budgets[name] < caps[name] for name in budgets):
            return weights
        return {name: budgets.get(name, 0.0) for name in weights}


def shared_out(total: float, even: Mapping[str, float], caps: Mapping[str, float]) -> dict[str, float]:
    """A total in the proportions of `even`, none above its cap, what a cap leaves over going to the others.

    Args:
        total: to share out; what is above the sum of the caps goes to nobody.
        even: proportions, each above 0.
        caps: the most that each may have.
    """
    # Whose cap is reached first, as the others' budgets rise.
    order = sorted(even, key=lambda name: caps[name] / even[name])
    beyond = list(accumulate(even[name] for name in reversed(order)))[::-1]  # proportions of each and all after it
    found: dict[str, float] = {}
    for name, rest in zip(order, beyond, strict=True):
        found[name] = min(caps[name], total * even[name] / rest)
        total -= found[name]
    return found
