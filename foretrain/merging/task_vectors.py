"""Add to a base what several trainings changed in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from foretrain.errors import RequestError
from foretrain.merging._tuned import OfTaskVectors
from foretrain.merging.arithmetic import Formula
from foretrain.parts import Facts
from foretrain.section import Number

if TYPE_CHECKING:
    from foretrain.merging.searching import Judge
    from foretrain.merging.weights import Weights


class TaskVectors(OfTaskVectors):
    """The base plus `weights` times what each of the models changed in it, summed in float64.

    Plain: two models of one base, one trained on text of a domain and one tuned to follow instructions, come to an
    instructed model of the domain without any instructions of it. All tensors are added, embeddings, norms and output
    layer included. That sums work is put down to vectors that are nearly at right angles: `merge.json` gives their
    cosines and norms, overall and by block, and a norm near the base's own says that a sum is no longer small.
    """

    kind: Literal["task_vectors"] = "task_vectors"
    facts: ClassVar[Facts] = Facts(
        paper="The Construction of Instruction-tuned LLMs for Finance without Instruction Data Using Continual "
        "Pretraining and Model Merging",
        arxiv="2409.19854",
        year=2024,
        answers="what is the model? a base, and what several trainings changed in it",
    )

    weights: list[Number] = []
    """How much of each difference is added, those of the runs first; unset: 1 of each, as published."""

    def formula(self, runs: Sequence[Weights], judge: Judge) -> Formula:
        vectors = self.vectors(runs)
        weights = self.weights or [1.0] * len(vectors)
        if len(weights) != len(vectors):
            raise RequestError(
                f"merge 'task_vectors': {len(weights)} weights are given for {len(vectors)} task vectors (those of the "
                "runs come first, where they count)."
            )

        def tensor(name: str) -> Tensor:
            found = vectors.base.read(name).double()
            for weight, difference in zip(weights, vectors.differences(name), strict=True):
                found.add_(difference, alpha=weight)
            return found

        geometry = vectors.geometry()
        words = "base" + "".join(f" + {weight:g} (tuned {i} - base)" for i, weight in enumerate(weights, 1))
        return Formula(
            [vectors.base, *vectors.tuned], tensor, words, geometry.figures(), {"geometry": geometry.plain()}
        )
