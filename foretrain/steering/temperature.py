"""A mixture by the sizes of its domains, flattened: large domains more often, small ones more than their share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from foretrain.parts import Facts
from foretrain.section import Number
from foretrain.steering._sizes import Unit, sizes
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context


class Temperature(Steering):
    """Temperature sampling: a domain is drawn in proportion to its size to the power of `exponent` (1 / T).

    At 1 it is proportional to its text, so that every text is read equally often; at 0 all domains are drawn alike,
    whatever they hold; between them small domains (languages with little text) are read more often than large ones.
    Papers write the exponent, 0.3 or 0.7, or the temperature T = 1 / exponent, 3 or 5.

    What is multiplied by these factors are the weights that come in: all alike they give the rule itself. Nothing
    bounds how often a small domain is read; `unimax` does.
    """

    kind: Literal["temperature"] = "temperature"
    facts: ClassVar[Facts] = Facts(
        paper="Unsupervised Cross-lingual Representation Learning at Scale",
        arxiv="1911.02116",
        year=2019,
        answers="mix: how much more of a small domain than its share of the text?",
    )
    neutral: ClassVar[dict[str, Any] | None] = {"exponent": 0.0, "unit": "tokens"}

    exponent: Number = Field(0.3, ge=0)
    """1: in proportion to size; 0: all alike."""
    unit: Unit = "tokens"
    """Shares and sizes are of tokens, or of bytes, which are fair to languages that a tokenizer cuts finely."""

    _factors: dict[str, float] = PrivateAttr(default_factory=dict)

    def setup(self, context: Context) -> None:
        """Look at the sizes of the sets."""
        known = sizes(context.stream)
        largest = max(size.amount(self.unit) for size in known.values())
        self._factors = {
            name: (size.amount(self.unit) / largest) ** self.exponent * size.tokens_per(self.unit)
            for name, size in known.items()
        }

    def mix(self, weights: Mapping[str, float], step: int) -> Mapping[str, float]:
        """The incoming weights, each times its factor; a domain without text to train on keeps its 0."""
        return {name: weight * self._factors.get(name, 1.0) for name, weight in weights.items()}
