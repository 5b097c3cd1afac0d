"""What smoothed targets share: the candidates of a token, and a fixed share of its weight spread over them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor

from foretrain.batch import Batch
from foretrain.objectives.base import Targets
from foretrain.section import Count, Number
from foretrain.spans import Span, lead
from foretrain.steering._candidates import check_candidates
from foretrain.steering.base import Steering

if TYPE_CHECKING:
    from foretrain.context import Context
    from foretrain.objectives.outputs import Outputs


class Smoothing(Steering):
    """`q = (1 - alpha) onehot + alpha r` over the true token and the learner's most likely others."""

    modality: ClassVar[str] = "text"
    neutral: ClassVar[dict[str, Any] | None] = {"alpha": 0.0}

    candidates: Count = Field(16, gt=1)
    """Targets that a token can get, the true one included."""
    alpha: Number = Field(0.25, ge=0, le=1)
    """Weight that is spread over the candidates; the rest stays on the true token."""
    until: Span | None = Field(None, gt=0)
    """From here on true tokens are the targets again: a share of the run, or a step; unset: never."""

    _end: int | None = PrivateAttr(None)

    def setup(self, context: Context) -> None:
        """See that the model has that many candidates.

        Raises:
            RequestError: it has fewer, or predicts no tokens.
        """
        check_candidates(self.kind, self.candidates, context)
        self._end = None if self.until is None else lead(self.until, context.total_steps)

    def smooths(self, step: int) -> bool:
        """Whether targets are smoothed in a step."""
        return self._end is None or step < self._end

    def step_kind(self, step: int) -> str:
        return "smoothed" if self._end is not None and self.smooths(step) else ""

    def targets(self, outputs: Outputs, batch: Batch) -> Targets | None:
        """The smoothed targets, from detached outputs."""
        if not self.smooths(batch.step):
            return None
        ids, known = outputs.candidates(batch["labels"], self.candidates)
        probabilities = self.alpha * self.spread(known)
        probabilities[..., 0] += 1 - self.alpha
        return Targets(ids, probabilities)

    @abstractmethod
    def spread(self, log_probabilities: Tensor) -> Tensor:
        """The distribution `r` over the candidates, from their log-probabilities [rows, length, K]; both float32."""

    def state_dict(self) -> dict[str, Any]:
        """Where smoothing ends, if it does: what was planned at the start holds."""
        return {} if self._end is None else {"end": self._end}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._end = state.get("end")
