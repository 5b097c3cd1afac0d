"""LiNeS: scale what training changed by a factor that grows with depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from foretrain.errors import RequestError
from foretrain.hashing import seed_from
from foretrain.merging._tuned import OfTaskVectors
from foretrain.merging.arithmetic import Formula
from foretrain.merging.rules.base import Combine, Rule
from foretrain.merging.rules.sum import total
from foretrain.merging.searching import Judge, Search, best_of, score
from foretrain.parts import Facts, PartOf
from foretrain.section import Number

if TYPE_CHECKING:
    from foretrain.merging.vectors import TaskVectors
    from foretrain.merging.weights import Weights
    from foretrain.recipe import Recipe


class Lines(OfTaskVectors):
    """The base plus a task vector whose tensors in block l of L are multiplied by alpha + beta l / (L - 1).

    Shallow blocks stay near the base and deep ones keep what training changed; what is outside of the blocks
    (embeddings, last norm, output layer) is multiplied by alpha. A network of one block has alpha alone.

    Of one tuned model it repairs forgetting: beta is 1 - alpha, so that the last block keeps all, and alpha is searched
    for. Of several it makes one model for all of their tasks: a rule makes one vector of theirs, alpha is the L1 norm
    of the sum of theirs over that of this vector, divided by their number, and beta is searched for. A search tries
    equally spaced values from 0 to 1 on what does not judge, and `slope: flat`, one factor for all, is given the same
    one.
    """

    kind: Literal["lines"] = "lines"
    facts: ClassVar[Facts] = Facts(
        paper="LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging",
        arxiv="2410.17146",
        year=2024,
        answers="what is the model? a base, and what training changed in it, the more the deeper",
        overhead="one measurement of a model for each value that is tried; none at use",
    )

    rule: PartOf[Rule] = Field({"kind": "sum"}, validate_default=True)
    """How the task vectors of several models become one."""
    alpha: Number | None = None
    """The factor at the first block; unset: searched for (one tuned model), or by the norms (several)."""
    beta: Number | None = None
    """What the factor grows by up to the last block; unset: 1 - alpha (one tuned model), or searched for (several)."""
    search: Search | None = None
    """What the factor that is searched for is chosen by."""
    slope: Literal["rising", "flat", "reversed", "permuted"] = "rising"
    """Controls: `flat` has alpha everywhere and searches for it (of several models as far as the L1 norm of their sum);
    `reversed` has its largest factor at the first block; `permuted` has the same factors in an order by chance."""
    seed: int = Field(0, ge=0)
    """Decides the order of `permuted`."""

    @model_validator(mode="after")
    def _flat_has_no_beta(self) -> Lines:
        if self.slope == "flat" and self.beta:
            raise ValueError("a flat slope has no beta; leave it out")
        return self

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        super().check(recipe, steps)
        if self.search is not None:
            self.search.refuse_unknown(recipe)

    def formula(self, runs: Sequence[Weights], judge: Judge) -> Formula:
        vectors = self.vectors(runs)
        combine = self.rule.over(vectors)
        free, pairs = self._candidates(vectors, combine)
        made = [self._formula(vectors, combine, alpha, beta) for alpha, beta in pairs]
        if free is None:
            return made[0]
        if self.search is None:
            raise RequestError(
                f"merge 'lines': nothing says what {free} is: give it, or what it is searched by (`search: {{figures: "
                "{steer/DOMAIN/loss: 1}}`)."
            )
        weights, model = self.search.figures, made[0].load()
        alone = [self._formula(vectors, _only(0), 0.0, 0.0)]
        alone += [self._formula(vectors, _only(number), 1.0, 0.0) for number in range(len(vectors))]
        best = best_of([judge.measure(each.load(model), weights) for each in alone])
        scores = [score(judge.measure(each.load(model), weights), best, weights) for each in made]
        chosen = made[max(range(len(made)), key=scores.__getitem__)]
        told = {"search": {"for": free, "values": self.search.grid(), "scores": scores}}
        return replace(chosen, told={**chosen.told, **told})

    def factors(self, alpha: float, beta: float, blocks: int) -> list[float]:
        """The factor of each block."""
        depths = [block / (blocks - 1) if blocks > 1 else 0.0 for block in range(blocks)]
        if self.slope == "reversed":
            depths = depths[::-1] if blocks > 1 else depths
        elif self.slope == "permuted":
            generator, order = torch.Generator().manual_seed(seed_from(self.seed, "lines")), list(range(blocks))
            while blocks > 1 and order == sorted(order):
                order = torch.randperm(blocks, generator=generator).tolist()
            depths = [depths[place] for place in order]
        return [alpha + (0.0 if self.slope == "flat" else beta * depth) for depth in depths]

    def _candidates(self, vectors: TaskVectors, combine: Combine) -> tuple[str | None, list[tuple[float, float]]]:
        """What is searched for (`alpha`, `beta` or nothing), and the pairs of both that come of it."""
        grid = self.search.grid() if self.search is not None else [0.0]
        single = len(vectors) == 1
        if self.alpha is None and (single or self.slope == "flat"):
            if self.beta is not None:
                return "alpha", [(alpha, self.beta) for alpha in grid]
            if not single:
                # As large as the sum of the vectors is at 1, whatever a rule leaves of them.
                largest = len(vectors) * _by_norms(vectors, combine)
                return "alpha", [(largest * alpha, 0.0) for alpha in grid]
            return "alpha", [(alpha, 1 - alpha) for alpha in grid]
        alpha = self.alpha if self.alpha is not None else _by_norms(vectors, combine)
        if self.beta is not None or self.slope == "flat":
            return None, [(alpha, self.beta or 0.0)]
        if single:
            return None, [(alpha, 1 - alpha)]
        return "beta", [(alpha, beta) for beta in grid]

    def _formula(self, vectors: TaskVectors, combine: Combine, alpha: float, beta: float) -> Formula:
        base = vectors.base
        factors = self.factors(alpha, beta, base.blocks)

        def tensor(name: str) -> Tensor:
            block = base.block(name)
            factor = alpha if block is None else factors[block]
            return base.read(name).double().add_(combine(name, vectors.differences(name)), alpha=factor)

        words = f"base + f(block) * {self.rule.kind}(tuned - base), f = {alpha:g} outside of the blocks"
        figures = {"alpha": alpha, "beta": 0.0 if self.slope == "flat" else beta}
        return Formula([base, *vectors.tuned], tensor, words, figures, {"factors": factors})


def _only(number: int) -> Combine:
    """One of several vectors."""
    return lambda name, differences: differences[number]


def _by_norms(vectors: TaskVectors, combine: Combine) -> float:
    """The L1 norm of the sum of the vectors over that of what a rule makes of them, divided by their number."""
    plain = made = 0.0
    for name, differences in vectors:
        plain += float(total(differences).abs().sum())
        made += float(combine(name, differences).abs().sum())
    return plain / made / len(vectors) if made > 0 else 1 / len(vectors)
