"""How far does the model compute something else than another one?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PrivateAttr

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.parts import Facts
from foretrain.probes._windows import drawn, windows_ahead
from foretrain.probes.base import Probe
from foretrain.section import Count

if TYPE_CHECKING:
    from foretrain.context import Context


class FunctionPreservation(Probe):
    """The model's predictions against those of a model that the recipe names, on windows that training comes to later.

    Before the first step of a model that was grown from it, this says whether the function was kept; later, how far
    training has taken it. The windows are of every domain that is drawn from, the same number of each. Of several
    processes each looks at all of them.

    Figures, over the loss tokens of the windows: `difference`, the root mean square of the difference of two
    log-probabilities of the true token; `kl`, the mean Kullback-Leibler divergence from the named model's distribution
    to the model's, over the whole vocabulary; `agreement`, the share of tokens for which both hold the same one for
    likeliest; `reference_loss`, the loss of the named model.
    """

    kind: Literal["function_preservation"] = "function_preservation"
    modality: ClassVar[str] = "text"
    facts: ClassVar[Facts] = Facts(
        paper="bert2BERT: Towards Reusable Pretrained Language Models",
        arxiv="2110.07143",
        year=2021,
        answers="does the model compute what another one does?",
        overhead="a forward pass of both models over `rows` windows of each domain; not counted in the budget",
    )

    model: str
    """The model to compare with: a name of the recipe's `models`."""
    rows: Count = Field(8, gt=0)
    """Windows of each domain."""

    _other: Any = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """Read the other model.

        Raises:
            RequestError: the recipe names no such model, or it tells other tokens apart.
        """
        self._other = context.named(self.model)
        vocabulary = int(context.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
        if self._other.vocabulary != vocabulary:
            raise RequestError(
                f"probe '{self.kind}': the model '{self.model}' tells {self._other.vocabulary} tokens apart and this "
                f"run's {vocabulary}, so their predictions do not compare."
            )

    @torch.no_grad()
    def measure(self, context: Context) -> dict[str, float]:
        """See the class."""
        found, learner = [], context.learner
        with learner.exact(), learner.evaluating():
            for domain in drawn(context):
                batch = windows_ahead(context, domain, np.arange(self.rows), seed_from(context.seed, self.kind, domain))
                own = context.objective.forward(learner.model, batch).logits().float().log_softmax(-1)
                other = self._other.outputs(batch).logits().float().log_softmax(-1)
                found.append((own[batch["mask"]], other[batch["mask"]], batch["labels"][batch["mask"]]))
        own, other, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        true = [each.gather(-1, labels[:, None])[:, 0] for each in (own, other)]
        return {
            "difference": float((true[0] - true[1]).square().mean().sqrt()),
            "kl": float((other.exp() * (other - own)).sum(-1).mean()),
            "agreement": float((own.argmax(-1) == other.argmax(-1)).float().mean()),
            "reference_loss": float(-true[1].mean()),
        }
