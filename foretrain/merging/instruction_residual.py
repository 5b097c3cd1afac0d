"""The instruction residual: what tuning changed in one model, added to another one of the same origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor

from foretrain.errors import RequestError
from foretrain.merging.arithmetic import Formula, WeightArithmetic
from foretrain.merging.rules.sum import total
from foretrain.merging.weights import Weights, open_weights, refuse_other_network
from foretrain.parts import Facts
from foretrain.section import ModelPath, Number

if TYPE_CHECKING:
    from foretrain.merging.searching import Judge
    from foretrain.recipe import Recipe


class InstructionResidual(WeightArithmetic):
    """The run's weights plus `scale` times (`plus` minus `minus`), summed in float64.

    A base model is tuned to follow instructions; then the base, and not the tuned model, is trained on new text, and
    what tuning had changed is added afterwards (task arithmetic, arXiv 2212.04089, with the tuned model's task vector).
    Plain: `plus` is the tuned model, `minus` the base that it was tuned from, and the run began with that base. Weights
    of models that were not trained from the same ones do not add up. Of several runs it is the mean that is moved.

    What comes out is one model, and costs as much at use.
    """

    kind: Literal["instruction_residual"] = "instruction_residual"
    facts: ClassVar[Facts] = Facts(
        paper="Balancing Continuous Pre-Training and Instruction Fine-Tuning: Optimizing Instruction-Following in LLMs",
        arxiv="2410.10739",
        year=2024,
        answers="what is the model? the run's weights, and what tuning changed in another model",
    )

    plus: ModelPath
    """The model that was tuned: its folder (a run's own, or an exported one), or `product:NAME` in a study."""
    minus: ModelPath
    """The model that it was tuned from, likewise."""
    scale: Number = 1.0
    """How much of the difference is added; the published value is 1."""

    def check(self, recipe: Recipe, steps: int | None = None) -> None:
        """See that both models are there, and are one network over the same ids.

        Raises:
            RequestError: they are not.
        """
        refuse_other_network(self._named())

    def formula(self, runs: Sequence[Weights], judge: Judge) -> Formula:
        if not runs:
            raise RequestError("merge 'instruction_residual' moves the weights of a run; name one under `runs`.")
        minus, plus = self._named()
        refuse_other_network([*runs, minus, plus])

        def tensor(name: str) -> Tensor:
            found = total([run.read(name).double() for run in runs]) / len(runs)
            difference = plus.read(name).double() - minus.read(name).double()
            return found.add_(difference, alpha=self.scale)

        return Formula([*runs, plus, minus], tensor, f"the run + {self.scale:g} (plus - minus)")

    def _named(self) -> list[Weights]:
        return [open_weights(which, getattr(self, which)) for which in ("minus", "plus")]
